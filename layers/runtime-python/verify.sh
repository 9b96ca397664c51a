#!/bin/sh
# The interpreter runs, its compiled modules load, and the package manager agrees that it is whole.
set -eu
python3 -c '
import hashlib, json, sqlite3, zlib
assert json.loads(json.dumps({"a": [1, 2.5, None]})) == {"a": [1, 2.5, None]}
assert zlib.decompress(zlib.compress(b"gilt" * 1000)) == b"gilt" * 1000
assert hashlib.sha256(b"").hexdigest().startswith("e3b0c442")
db = sqlite3.connect(":memory:")
assert db.execute("select 6 * 7").fetchone() == (42,)
'
broken=$(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' | grep -v '^ii ' || true)
[ -z "$broken" ] || { echo "not installed whole: $broken" >&2; exit 1; }
python3 --version
