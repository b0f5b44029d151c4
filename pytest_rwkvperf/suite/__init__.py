"""The tests that come with the plugin: the guide's measurements for every engine."""
