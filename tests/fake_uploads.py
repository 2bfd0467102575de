"""What both servers on loopback do when something is sent to them."""

import base64
import hashlib
import json
from urllib.parse import unquote, urlsplit


class HubUploads:
    """The Hugging Face Hub's part of it: repositories, branches, large files by LFS, commits.

    The server's `repos` holds name -> {"private": bool, "branches": {branch: {path: content}}}, `messages` those of the
    commits, `blobs` the large files by their SHA-256.
    """

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        if path == "/api/repos/create":
            self._at("create", self._create, json.loads(body))
        elif path == "/api/validate-yaml":
            self._at("validate", lambda _: {"errors": [], "warnings": []}, json.loads(body))
        elif "/branch/" in path:
            self._at("branch", self._branch, path)
        elif "/preupload/" in path:
            self._at("preupload", self._modes, json.loads(body))
        elif path.endswith("/info/lfs/objects/batch"):
            self._at("lfs", self._addresses, json.loads(body))
        elif "/commit/" in path:
            self._at("commit", lambda content: self._commit(path, content), body)
        else:
            self.answer(404, b"{}", {})

    def do_PUT(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self.begins("put"):
            self.server.blobs[self.path.rpartition("/")[2]] = content
            self.answer(200, b"", {})

    def describe_repo(self, repo):
        """Model information of a repository that was made by an upload; False if there is none."""
        found = self.server.repos.get(repo)
        if found is not None:
            self._json({"id": repo, "sha": "0" * 40, "siblings": [], "private": found["private"], "tags": []})
        return found is not None

    def _at(self, kind, act, argument):
        if self.begins(kind):
            document = act(argument)
            if document is not None:
                self._json(document)

    def _json(self, document, status=200):
        self.answer(status, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def _create(self, body):
        name = f"{body['organization']}/{body['name']}"
        self.server.repos[name] = {"private": body.get("visibility") == "private", "branches": {"main": {}}}
        return {"url": f"{self.server.url}/{name}"}

    def _branch(self, path):
        repo, branch = path.removeprefix("/api/models/").split("/branch/")
        branches = self.server.repos[repo]["branches"]
        if branch in branches:
            self._json({"error": "Reference already exists"}, 409)
            return None
        branches[branch] = {}
        return {}

    def _modes(self, body):
        large = (".safetensors", ".h5", ".gguf", ".spm")

        def mode(name):
            kind = "lfs" if name.endswith(large) else "regular"
            return {"path": name, "uploadMode": kind, "shouldIgnore": False, "oid": None}

        return {"files": [mode(file["path"]) for file in body["files"]]}

    def _addresses(self, body):
        objects = [
            {**entry, "actions": {"upload": {"href": f"{self.server.url}/lfs/{entry['oid']}"}}}
            for entry in body["objects"]
        ]
        return {"transfer": "basic", "objects": objects}

    def _commit(self, path, content):
        repo, revision = path.removeprefix("/api/models/").split("/commit/")
        lines = [json.loads(line) for line in content.splitlines()]
        files = self.server.repos[repo]["branches"].get(revision)
        if files is None:
            self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return None
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.server.messages.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            else:
                files[value["path"]] = self.server.blobs[value["oid"]]
        sha = hashlib.sha1(content).hexdigest()
        return {"commitUrl": f"{self.server.url}/{repo}/commit/{sha}", "commitOid": sha, "success": True}


class KaggleUploads:
    """Kaggle's part of it: models, blobs, model instances and their versions.

    The server's `models` holds "owner/model" -> {variation: [files of each version]}, `blobs` the files by token;
    `complaint` is what it says of every instance.
    """

    def upload(self, operation, body):
        """Answers one of the calls of an upload; False if it is none."""
        acts = {
            "GetModel": ("model", self._model),
            "CreateModel": ("create", self._create_model),
            "StartBlobUpload": ("blob", self._start),
            "CreateModelInstance": ("instance", self._instance),
            "CreateModelInstanceVersion": ("version", self._version),
        }
        if operation not in acts:
            return False
        kind, act = acts[operation]
        if self.begins(kind):
            act(body)
        return True

    def do_PUT(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self.begins("put"):
            name = self.server.blobs[int(self.path.rpartition("/")[2])][0]
            self.server.blobs[int(self.path.rpartition("/")[2])] = (name, content)
            self.answer(200, b"", {})

    def _model(self, body):
        if self._name(body) in self.server.models:
            self._json({"id": 1, "slug": body["modelSlug"], "isPrivate": True})
        else:
            self._json({"code": 404, "message": "not found"}, 404)

    def _create_model(self, body):
        self.server.models[f"{body['ownerSlug']}/{body['slug']}"] = {}
        self.server.private.append(body["isPrivate"])
        self._json({"id": 1})

    def _start(self, body):
        self.server.blobs.append((body["name"], b""))
        number = len(self.server.blobs) - 1
        self._json({"token": f"token-{number}", "createUrl": f"{self.server.url}/blob/{number}"})

    def _instance(self, body):
        variations = self.server.models[self._name(body)]
        name = body["body"]["instanceSlug"]
        if self.server.complaint:
            self._json({"error": self.server.complaint})
            return
        if name in variations:
            self._json({"error": "already exists", "errorCode": 409})
            return
        variations[name] = [dict(self._sent(body["body"]))]
        self._json({"id": 1})

    def _version(self, body):
        self.server.models[self._name(body)][body["instanceSlug"]].append(dict(self._sent(body["body"])))
        self.server.notes.append(body["body"].get("versionNotes"))
        self._json({"id": 1})

    def _name(self, body):
        return f"{body['ownerSlug']}/{body['modelSlug']}"

    def _sent(self, directory, path=""):
        for file in directory.get("files") or ():
            name, content = self.server.blobs[int(file["token"].rpartition("-")[2])]
            yield path + name, content
        for child in directory.get("directories") or ():
            yield from self._sent(child, f"{path}{child['name']}/")
