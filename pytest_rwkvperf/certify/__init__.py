"""What the gate does on this machine: trials with an unchanged engine and with planted slowdowns."""
