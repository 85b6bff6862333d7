"""Importing this makes a process deaf to Ctrl-C, which reaches all of a terminal: the main one decides what happens."""

import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)
