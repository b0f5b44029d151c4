"""What every other room stands on: errors, cases, the engine protocol, samples, text, folders, locks and files."""
