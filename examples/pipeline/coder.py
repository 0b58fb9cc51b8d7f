#!/usr/bin/env python3
"""Waits for a plan, writes the program, and passes it on."""
import json
import os
import subprocess
import sys

directory = sys.argv[1]
store, session = os.path.split(directory)
os.chdir(directory)

subprocess.run([os.environ['BATONFS'], 'wait', store, session, '--timeout', '120'], check=True, stdout=subprocess.DEVNULL)
with open('__handoff.json') as f:
    task = json.load(f)['summary']
with open(task['read']) as f:
    plan = f.read().strip()

# What is written is there for others when the file is closed, whole, and not before.
with open('greet.py', 'w') as f:
    f.write(f'"""{plan}"""\nimport sys\nprint(f"Hello, {{sys.argv[1]}}!")\n')
with open('__handoff.json', 'w') as f:
    json.dump({'task': 'review greet.py', 'run': ['greet.py', 'Ada'], 'expect': task['expect']}, f)
