"""Kaggle on loopback: newest version, files in pages, files by redirect to a storage that sends MD5s; uploads."""

import base64
import hashlib
import json
from urllib.parse import quote, unquote, urlsplit

from fake_uploads import KaggleUploads
from faulty_http import FaultyHandler, FaultyServer

SIGNATURE = "X-Goog-Signature=0123456789abcdef"
PAGE = 4


class FakeKaggle(FaultyServer):
    """Holds one model, `org/m/keras/tiny`.

    versions: number -> files. names: listed in place of the files' own names. asked: the files that
    downloads named; None would be the whole model as an archive.
    """

    def __init__(self, files):
        super().__init__(_Handler)
        self.versions, self.names, self.asked = {1: dict(files)}, {}, []
        self.models, self.blobs, self.private, self.notes = {}, [], [], []  # of uploads, see fake_uploads.py
        self.complaint = ""
        self.offers_digests, self.redirects = True, True


class _Handler(KaggleUploads, FaultyHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        operation = self.path.rsplit("/", 1)[1]
        if self.upload(operation, body):
            return
        kind = {"GetModelInstance": "newest", "ListModelInstanceVersionFiles": "list"}.get(operation, "file")
        if not self.begins(kind):
            return
        server = self.server
        model = [body.get(key) for key in ("ownerSlug", "modelSlug", "instanceSlug")]
        version = body.get("versionNumber") or max(server.versions)
        if model != ["org", "m", "tiny"] or version not in server.versions:
            self._json({"code": 404, "message": "not found"}, 404)
        elif kind == "newest":
            self._json({"id": 1, "slug": "tiny", "versionNumber": max(server.versions)})
        elif kind == "list":
            self._list(server.versions[version], int(body.get("pageToken") or 0))
        else:
            self._download(version, body.get("path"))

    def do_GET(self):
        if self.begins("storage"):
            version, name = unquote(urlsplit(self.path).path).removeprefix("/storage/").split("/", 1)
            self._content(name, self.server.versions[int(version)][name])

    def _list(self, files, first):
        names = list(files)
        page = [{"name": self.server.names.get(name, name), "size": len(files[name])} for name in names[first:][:PAGE]]
        token = str(first + PAGE) if first + PAGE < len(names) else ""
        self._json({"files": page, "nextPageToken": token})

    def _download(self, version, name):
        self.server.asked.append(name)
        files = self.server.versions[version]
        if name not in files:
            self._json({"code": 404, "message": "no such file"}, 404)
        elif self.server.redirects:
            self.answer(302, b"", {"Location": f"{self.server.url}/storage/{version}/{quote(name)}?{SIGNATURE}"})
        else:
            self._content(name, files[name])

    def _content(self, name, content):
        md5 = base64.b64encode(hashlib.md5(content).digest()).decode()
        offered = f"crc32c=AAAAAA==,md5={md5}" if self.server.offers_digests else "crc32c=AAAAAA=="
        self.send_file(name, content, {"x-goog-hash": offered, "Content-Type": "application/octet-stream"})

    def _json(self, document, status=200):
        self.answer(status, json.dumps(document).encode(), {"Content-Type": "application/json"})
