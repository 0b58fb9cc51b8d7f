#!/usr/bin/env bash
# Says what is to be made, and passes it on.
set -euo pipefail
cd "$1"
cat > plan.md << 'END'
A program that greets whoever its argument names.
END
# A program's redirection, not a builtin's: shells do not tell of a close that fails.
jq -n '{task: "write greet.py", read: "plan.md", expect: "Hello, Ada!"}' > __handoff.json
