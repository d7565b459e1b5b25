"""Host keys and logins."""

from __future__ import annotations

import subprocess

import pytest
from dpp import FetchError, FileData, InputError, Settings

from dpp_sftp import SftpFetcher
from listening import wait_until
from sshd import make_key, program, sshd


def fingerprint(key):
    shown = subprocess.run([program("ssh-keygen"), "-lf", key], capture_output=True, text=True, check=True)
    return shown.stdout.split()[1]


def refusal(fetch, path, **options):
    with pytest.raises(FetchError) as caught:
        fetch(path, options)
    assert not caught.value.retryable
    return caught.value.error_class, str(caught.value)


def known_hosts(tmp_path, *lines):
    path = tmp_path / "known_hosts"
    path.write_text("".join(f"{line}\n" for line in lines))
    return {"known_hosts": str(path)}


@pytest.mark.fault(32)
def test_an_unknown_host_key_is_refused_with_the_command_that_shows_it(fetch, outbox, server, tmp_path):
    error_class, message = refusal(fetch, outbox("a"), **known_hosts(tmp_path, f"elsewhere {server.host_key}"))
    assert error_class == "host-key"
    assert f"ssh-ed25519 {fingerprint(server.folder / 'host_key')}" in message
    assert f"`ssh-keyscan -p {server.port} 127.0.0.1 | ssh-keygen -lf -`" in message


def test_the_command_shows_that_fingerprint(server):
    command = f"ssh-keyscan -p {server.port} 127.0.0.1 | ssh-keygen -lf -"
    patient = command.replace("ssh-keyscan", "ssh-keyscan -T 60")  # the default timeout is 5 s
    shown = subprocess.run(["sh", "-c", patient], capture_output=True, text=True, check=True)
    assert fingerprint(server.folder / "host_key") in shown.stdout


@pytest.mark.fault(32)
def test_a_changed_host_key_is_refused_with_both_fingerprints(fetch, outbox, server, tmp_path):
    other = make_key(tmp_path / "other")
    line = f"[127.0.0.1]:{server.port} {' '.join((tmp_path / 'other.pub').read_text().split()[:2])}"
    error_class, message = refusal(fetch, outbox("a"), **known_hosts(tmp_path, line))
    assert error_class == "host-key"
    assert "does not match the known hosts" in message
    assert fingerprint(other) in message
    assert fingerprint(server.folder / "host_key") in message


def test_a_known_key_of_another_kind_is_no_reason_to_trust(fetch, outbox, server, tmp_path):
    make_key(tmp_path / "ecdsa", "-t", "ecdsa", "-N", "")
    line = f"[127.0.0.1]:{server.port} {' '.join((tmp_path / 'ecdsa.pub').read_text().split()[:2])}"
    error_class, message = refusal(fetch, outbox("a"), **known_hosts(tmp_path, line))
    assert error_class == "host-key"
    assert "does not match the known hosts" in message


def test_a_hashed_entry_is_found(fetch, outbox, server, tmp_path):
    options = known_hosts(tmp_path, f"[127.0.0.1]:{server.port} {server.host_key}")
    subprocess.run([program("ssh-keygen"), "-q", "-H", "-f", options["known_hosts"]], check=True, capture_output=True)
    assert "|1|" in (tmp_path / "known_hosts").read_text()
    assert fetch(outbox("a"), options) == b"data"


@pytest.mark.parametrize("revoked", ["*", "127.0.0.1", "[127.0.0.1]:{port}"])
def test_a_revoked_key_is_refused_whatever_trusts_it(fetch, outbox, server, tmp_path, revoked):
    lines = f"@revoked {revoked.format(port=server.port)} {server.host_key}", f"127.0.0.1 {server.host_key}"
    error_class, message = refusal(fetch, outbox("a"), **known_hosts(tmp_path, *lines))
    assert error_class == "host-key"
    assert "revoked" in message


def test_a_key_known_for_the_address_alone_is_not_trusted_for_a_name(fetch, server, tmp_path, outbox):
    url = server.url(outbox("a")).replace("127.0.0.1", "localhost")
    assert refusal(fetch, url, **known_hosts(tmp_path, f"[127.0.0.1]:{server.port} {server.host_key}"))[0] == "host-key"
    assert fetch(url, known_hosts(tmp_path, f"[localhost]:{server.port} {server.host_key}")) == b"data"


def test_the_usual_file_is_read_where_none_is_named(fetch, server, outbox, tmp_path):
    (tmp_path / ".ssh").mkdir()
    assert refusal(fetch, outbox("a"), known_hosts=[])[0] == "host-key"
    (tmp_path / ".ssh" / "known_hosts").write_text(server.known_hosts.read_text())
    assert fetch(outbox("a"), {"known_hosts": []}) == b"data"


def test_certificates_of_a_known_authority_are_trusted(fetch, outbox, tmp_path):
    folder = tmp_path / "server"
    folder.mkdir()
    authority = make_key(tmp_path / "authority")
    make_key(folder / "host_key")
    sign = ["-s", authority, "-I", "host", "-h", "-n", "127.0.0.1", folder / "host_key.pub"]
    subprocess.run([program("ssh-keygen"), "-q", *sign], check=True)
    with sshd(folder, f"HostCertificate {folder}/host_key-cert.pub") as server:
        options = {**server.options, **known_hosts(tmp_path, f"@cert-authority * {(tmp_path / 'authority.pub').read_text()}")}
        assert fetch(server.url(outbox("a")), options) == b"data"


@pytest.mark.parametrize(("text", "reason"), [("nonsense", "Invalid known hosts entry"), (None, "cannot read .*No such file")])
def test_known_hosts_that_cannot_be_read_are_no_reason_to_trust(fetch, outbox, tmp_path, text, reason):
    if text:
        (tmp_path / "kh").write_text(text)
    with pytest.raises(FetchError, match=reason) as caught:
        fetch(outbox("a"), {"known_hosts": str(tmp_path / "kh")})
    assert caught.value.error_class == "host-key"


def test_there_is_no_option_that_switches_the_check_off(listed):
    with pytest.raises(InputError, match="options of sftp:\n  unknown option 'verify'"):
        listed(options={"verify": False})


def test_a_wrong_key_is_refused(fetch, outbox, tmp_path):
    error_class, message = refusal(fetch, outbox("a"), key_file=str(make_key(tmp_path / "wrong")))
    assert error_class == "auth"
    assert "refused the login" in message


def test_a_refused_login_is_not_tried_again(outbox, server, proxy, tmp_path):
    options = {**server.options, "key_file": str(make_key(tmp_path / "wrong"))}
    made = SftpFetcher(Settings(connect_timeout=60, options={"sftp": options}))
    for _ in range(5):
        with pytest.raises(FetchError, match="refused the login"):
            made.fetch(server.url(outbox("a"), proxy.port), FileData(url="sftp://h/a"), None)
    made.close()
    assert len(proxy.served) == 1


def test_a_key_with_a_passphrase(fetch, outbox, server, tmp_path, monkeypatch):
    key = tmp_path / "key"
    key.write_bytes(server.key_file.read_bytes())
    key.chmod(0o600)
    subprocess.run([program("ssh-keygen"), "-q", "-p", "-N", "open sesame", "-f", key], check=True, stdout=subprocess.DEVNULL)
    error_class, message = refusal(fetch, outbox("a"), key_file=str(key))
    assert (error_class, "key_passphrase_env" in message) == ("auth", True)
    monkeypatch.setenv("KEY_PASSPHRASE", "open sesame")
    assert fetch(outbox("a"), {"key_file": str(key), "key_passphrase_env": "KEY_PASSPHRASE"}) == b"data"


def test_keys_of_an_agent_and_in_the_home_are_used(fetch, outbox, server, tmp_path, monkeypatch):
    assert refusal(fetch, outbox("a"), key_file=None)[0] == "auth"
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_ed25519").write_bytes(server.key_file.read_bytes())
    assert fetch(outbox("a"), {"key_file": None}) == b"data"


def test_keys_of_an_agent_are_used(fetch, outbox, server, tmp_path, monkeypatch):
    agent = subprocess.Popen([program("ssh-agent"), "-D", "-a", tmp_path / "agent"], stdout=subprocess.PIPE)
    try:
        agent.stdout.readline()
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        subprocess.run([program("ssh-add"), "-q", server.key_file], check=True)
        assert fetch(outbox("a"), {"key_file": None}) == b"data"
    finally:
        agent.kill()
        agent.communicate()


@pytest.fixture
def with_password(server, outbox, fetch, tmp_path):
    """Run a server with a password; yield a function that downloads, the URL, and a function that counts refused passwords."""
    (tmp_path / "other").mkdir()
    with sshd(tmp_path / "other", password="open sesame/%40 ü") as other:
        options = {"key_file": None, "known_hosts": str(other.known_hosts)}
        url = other.url(outbox("a"))

        def refused():
            wait_until(lambda: "Connection closed by" in other.log)  # the server responds to a login before it logs the result
            return other.log.count("Failed password")

        yield lambda url=url, **more: fetch(url, {**options, **more}), url, refused


def test_a_password_comes_from_a_variable_or_a_file(with_password, monkeypatch, tmp_path):
    get, _, _ = with_password
    monkeypatch.setenv("ACME_PASSWORD", "open sesame/%40 ü")
    assert get(password_env="ACME_PASSWORD") == b"data"
    (tmp_path / "password").write_text("open sesame/%40 ü\n")
    assert get(password_file=str(tmp_path / "password")) == b"data"


def test_a_password_in_the_url_works_too(with_password):
    get, url, _ = with_password
    assert get(url=url.replace("@", ":open%20sesame%2f%2540%20%C3%BC@")) == b"data"


def test_a_wrong_password_is_tried_once_and_not_shown(with_password, monkeypatch):
    get, _, refused = with_password
    monkeypatch.setenv("ACME_PASSWORD", "canary-5ecret")
    with pytest.raises(FetchError) as caught:
        get(password_env="ACME_PASSWORD")
    assert (caught.value.error_class, refused()) == ("auth", 1)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"password_env": "NOT_SET"}, "the environment variable NOT_SET is not set or empty"),
        ({"password_file": "nowhere"}, "cannot read nowhere: No such file"),
        ({"key_file": "nowhere"}, "cannot read nowhere: No such file"),
        ({"key_file": "known_hosts"}, "is not a usable private key"),
    ],
)
def test_what_an_option_refers_to_has_to_be_there(fetch, outbox, server, options, reason):
    options = {name: str(server.folder / value) if value == "known_hosts" else value for name, value in options.items()}
    with pytest.raises(FetchError, match=reason) as caught:
        fetch(outbox("a"), options)
    assert caught.value.error_class == "auth"


def test_a_name_that_no_host_can_have_is_an_error(fetch):
    with pytest.raises(FetchError, match="is not a valid host name") as caught:
        fetch(f"sftp://{'x' * 64}.example/a")
    assert (caught.value.error_class, caught.value.retryable) == ("dns", False)


def test_a_private_server_is_refused_before_the_login(server, outbox, tmp_path):
    fetcher = SftpFetcher(
        Settings(deny_private=True, options={"sftp": known_hosts(tmp_path, f"[127.0.0.1]:{server.port} {server.host_key}")})
    )
    url = f"sftp://127.0.0.1:{server.port}{outbox('a')}"
    with pytest.raises(FetchError, match=r"the server's address 127\.0\.0\.1 is not public") as caught:
        fetcher.fetch(url, FileData(url=url), None)
    assert (caught.value.error_class, fetcher.checks_peers) == ("refused", True)
