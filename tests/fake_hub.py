"""The Hugging Face hub on loopback: model information at a revision, files at a commit, uploads."""

import hashlib
import json
from urllib.parse import unquote, urlsplit

from fake_uploads import HubUploads
from faulty_http import FaultyHandler, FaultyServer

LARGE = (".safetensors", ".h5", ".spm", ".model")


def commit_of(files):
    """A commit's name, which depends on its content."""
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


class FakeHub(FaultyServer):
    """Holds one repository, `org/m`.

    commits: sha -> files. branches: name -> sha. names: listed in place of the files' own names.
    """

    def __init__(self, files):
        super().__init__(_Handler)
        self.commits, self.branches, self.names, self.digests = {}, {}, {}, {}
        self.repos, self.messages, self.blobs = {}, [], {}  # of uploads, see fake_uploads.py
        self.offers_digests = True
        self.push(files)

    def push(self, files, branch="main"):
        """A new commit on a branch; returns its name."""
        sha = commit_of(files)
        self.commits[sha] = dict(files)
        self.branches[branch] = sha
        return sha


class _Handler(HubUploads, FaultyHandler):
    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        if path == "/api/agent-harnesses":
            self.answer(404, b"{}", {})
        elif path.startswith("/api/models/"):
            if self.begins("list"):
                self._describe(path)
        elif self.begins("file"):
            self._send(path)

    def _describe(self, path):
        repo, _, revision = path.removeprefix("/api/models/").partition("/revision/")
        server = self.server
        if self.describe_repo(repo):
            return
        if repo != "org/m":
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            return
        sha = server.branches.get(revision or "main", revision)
        if sha not in server.commits:
            self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = [self._sibling(name, content) for name, content in server.commits[sha].items()]
        information = {"id": "org/m", "sha": sha, "siblings": siblings, "private": False, "tags": []}
        self.answer(200, json.dumps(information).encode(), {"Content-Type": "application/json"})

    def _sibling(self, name, content):
        entry = {"rfilename": self.server.names.get(name, name)}
        if not self.server.offers_digests:
            return entry
        entry |= {"size": len(content), "blobId": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()}
        if name.endswith(LARGE):
            sha256 = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 130}
        return entry

    def _send(self, path):
        parts = path.split("/", 5)
        files = self.server.commits.get(parts[4], {}) if len(parts) == 6 else {}
        if parts[1:4] != ["org", "m", "resolve"] or parts[5] not in files:
            self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        self.send_file(parts[5], files[parts[5]], {"ETag": '"unused"', "X-Repo-Commit": parts[4]})
