"""Is a folder on a network file system? sqlite must not be: its locks fail there (https://sqlite.org/faq.html#q5).

In: a path, which need not exist yet. Out: the file system's name, or None where it is local or unknown.
"""

from __future__ import annotations

from pathlib import Path

MOUNTS = Path("/proc/self/mounts")
NETWORK = {
    "afs", "beegfs", "ceph", "cifs", "efs", "fuse.glusterfs", "fuse.juicefs", "fuse.s3fs", "fuse.sshfs",
    "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "orangefs", "pvfs2", "smb3", "smbfs", "wekafs",
}  # fmt: skip


def network_filesystem(path: Path, mounts: Path | None = None) -> str | None:
    """Name of the network file system that holds `path`."""
    try:
        lines = (mounts or MOUNTS).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return None
    whole, found = path.expanduser().resolve(), (Path("/"), "")
    for line in lines:
        _, place, kind, *_ = [*line.split(), "", "", ""]
        point = Path(place.replace("\\040", " "))
        if whole.is_relative_to(point) and len(point.parts) >= len(found[0].parts):
            found = point, kind
    return found[1] if found[1] in NETWORK else None
