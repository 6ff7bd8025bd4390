"""A control panel: signs a customer's domain up, brings it to testing, reads its reports, promotes it, and removes it."""
import json, sys, urllib.request

BASE, TOKEN, DOMAIN = sys.argv[1:4]
PATH = f"/v1/domains/{DOMAIN}"


def ask(method, path, body=None, **headers):
    data = None if body is None else json.dumps(body).encode()
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(BASE + path, data, {"Authorization": f"Bearer {TOKEN}", **headers}, method=method)
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read() or "null"), answer.headers


def tell(what, more=None):
    """Tells the rest of the provider's systems something, and waits until it is done."""
    print(json.dumps([what, more]), flush=True)
    sys.stdin.readline()


def bring_to_rest():
    """Applies the plan; what Sternpost can't change itself is published by the provider."""
    while True:
        operation, _ = ask("POST", f"{PATH}/apply?wait=60")
        while operation["state"] == "running":
            operation, _ = ask("GET", f"/v1/operations/{operation['operation']}?wait=60")
        outcome = operation["outcome"]
        if outcome["rest"] != "unseen":
            return outcome["rest"]
        tell("publish", ask("GET", f"{PATH}/plan")[0]["stages"][0])


settings, _ = ask("PUT", PATH, {"rua": ["mailto:tlsrpt@example.net"]}, If_None_Match="*")
assert settings["changed"]
assert bring_to_rest() == "evidence", "the domain is in testing"
assert ask("GET", f"{PATH}/status")[0]["progress"]["rest"] == "evidence"
tell("report")
assert [one["submitter"] for one in ask("GET", f"/v1/reports?domain={DOMAIN}")[0]["reports"]] == ["big.example"]
decision, _ = ask("POST", f"{PATH}/promote", {"force": True, "reason": "the customer asked for it"})
assert decision["changed"] and bring_to_rest() == "done"
settings, headers = ask("GET", PATH)
assert settings["mode"]["mode"] == "enforce"
ask("PUT", PATH, {**settings["wanted"], "mode": "none"}, If_Match=headers["ETag"])
assert bring_to_rest() == "wait", "senders may hold the policy, so that it is retired first"
ask("DELETE", f"{PATH}?although_bound=true")
tell("left", ask("GET", "/v1/domains")[0]["domains"])
