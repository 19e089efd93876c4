"""Functions of the user's in place of built-in ones: by path/to/file.py:function or as an entry point.

address.py  what a knob or setting holds for one: PLACE:FUNCTION@DIGEST or NAME@DIGEST
source.py   the code by value, and its digest
loading.py  from the source to a function that can be called, whose errors are one line
permission.py  which code may run where something goes on

The digest is over the file and what it imports from beside it. It stands in the value, so it is in every record and in
the fingerprint of a trial, and a file that has changed since is never run in the place of the one that was meant.
"""

from trainables.errors import PluginError
from trainables.plugins.address import ARRAYS, GROUPS, Address, has_digest, is_plugin, named, said
from trainables.plugins.loading import calling, code_for, load, remember
from trainables.plugins.permission import Permission, plugins_in
from trainables.plugins.source import Code, copied

__all__ = [
    "ARRAYS",
    "GROUPS",
    "Address",
    "Code",
    "Permission",
    "PluginError",
    "calling",
    "code_for",
    "copied",
    "has_digest",
    "is_plugin",
    "load",
    "named",
    "plugins_in",
    "remember",
    "said",
]
