"""What every other folder uses: errors, cases, the engine protocols, text, folders, locks, files, subprocesses."""
