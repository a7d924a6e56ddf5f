"""A server on this machine that speaks the fine-tuning API over HTTP, and breaks when told to."""

import json
import socket
import threading
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VARIABLE = "MACONDO_TEST_KEY"  # of the environment
KEY = "sk-test-0123456789abcdef"
RESULTS = "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n" + "".join(
    f"{step},{3 / step},0.5,{2 + 1 / step if step % 2 == 0 else ''},0.5\n" for step in range(1, 9)
)


class FakeService:
    """Files, jobs and what was asked, for tests to look at.

    `troubles` maps "METHOD path" to what goes wrong with the next such requests, one after the
    other: a status, (status, body, headers), "drop" (the line breaks before anything happens),
    "drop after" (it breaks when all is done), or a function that is called with this service.
    """

    def __init__(self):
        self.files, self.jobs, self.asked, self.troubles = {}, {}, [], {}
        self.statuses = ["validating_files", "running", "succeeded"]
        self.results = RESULTS.encode()
        self.events = []
        self.first_tokens = [("Rosa", -0.5), ("Kim", -1.25)]
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}
        )
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def count(self, request):
        return self.asked.count(request)

    def upload(self, name, content, purpose="fine-tune"):
        """Keep a file and return it as the API shows it."""
        number = f"file-{len(self.files) + 1}"
        self.files[number] = {
            "id": number,
            "object": "file",
            "bytes": len(content),
            "created_at": 0,
            "filename": name,
            "purpose": purpose,
            "status": "processed",
            "content": content,
        }
        return shown(self.files[number])

    def start(self, wanted):
        """Keep a job and return it as the API shows it."""
        number = f"ftjob-{len(self.jobs) + 1}"
        self.jobs[number] = {
            "id": number,
            "object": "fine_tuning.job",
            "created_at": 0,
            "model": wanted["model"],
            "training_file": wanted["training_file"],
            "validation_file": wanted.get("validation_file"),
            "hyperparameters": wanted["hyperparameters"],
            "status": "queued",
            "organization_id": "org",
            "result_files": [],
            "seed": wanted["seed"],
            "fine_tuned_model": None,
            "error": None,
            "looks": 0,
        }
        return shown(self.jobs[number])

    def look(self, number):
        """Return a job; each look finds it one status further."""
        job = self.jobs[number]
        job["status"] = self.statuses[min(job["looks"], len(self.statuses) - 1)]
        job["looks"] += 1
        if job["status"] == "failed":
            job["error"] = {"code": "bad", "message": f"moderation, {KEY}", "param": None}
        if job["status"] == "succeeded":
            job["fine_tuned_model"] = f"ft:{job['model']}:macondo"
            if self.results and not job["result_files"]:
                found = self.upload("results.csv", self.results, "fine-tune-results")
                job["result_files"] = [found["id"]]
        return shown(job)

    def answer(self, wanted):
        top = [{"token": t, "logprob": p, "bytes": None} for t, p in self.first_tokens]
        logprobs = {"content": [{**top[0], "top_logprobs": top}], "refusal": None} if top else None
        message = {"role": "assistant", "content": "Rosa.", "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": logprobs}
        return {
            "id": "c",
            "object": "chat.completion",
            "created": 0,
            "model": wanted["model"],
            "choices": [choice],
        }


def shown(kept):
    """Return what the API shows of a file or job."""
    return {name: value for name, value in kept.items() if name not in ("content", "looks")}


def handler_of(service):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments):
            pass

        def do_GET(self):
            self.serve()

        def do_POST(self):
            self.serve()

        def serve(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = self.path.split("?")[0].removeprefix("/v1")
            request = f"{self.command} {path}"
            service.asked.append(request)
            if self.headers["Authorization"] != f"Bearer {KEY}":
                return self.reply(401, error(f"wrong key: {self.headers['Authorization']}"))
            waiting = service.troubles.get(request, [])
            trouble = waiting.pop(0) if waiting else None
            if callable(trouble):
                trouble = trouble(service)
            if trouble == "drop":
                return self.drop()
            if isinstance(trouble, int):
                return self.reply(trouble, error(f"trouble, {self.headers['Authorization']}"))
            if isinstance(trouble, tuple):
                return self.reply(*trouble)
            answer = self.route(request, path, body)
            return self.drop() if trouble == "drop after" else self.reply(200, answer)

        def route(self, request, path, body):
            if request == "POST /files":
                head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
                parts = message_from_bytes(head + body).get_payload()
                file = next(part for part in parts if part.get_filename())
                return service.upload(file.get_filename(), file.get_payload(decode=True))
            if request == "POST /fine_tuning/jobs":
                return service.start(json.loads(body))
            if request == "POST /chat/completions":
                return service.answer(json.loads(body))
            if request == "GET /files":
                return listed(map(shown, service.files.values()))
            if request == "GET /fine_tuning/jobs":
                return listed(map(shown, service.jobs.values()))
            if path.endswith("/content"):
                return service.files[path.split("/")[2]]["content"]
            if path.endswith("/events"):
                return listed(service.events)
            return service.look(path.split("/")[3])

        def reply(self, status, answer, headers=None):
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            kind = "text/csv" if isinstance(answer, bytes) else "application/json"
            for name, value in {"Content-Type": kind, **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def drop(self):
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    return Handler


def listed(entries):
    return {"object": "list", "data": list(entries), "has_more": False}


def error(message, code=None):
    return {"error": {"message": message, "type": "error", "param": None, "code": code}}
