"""Pages to delete and archive, as a client without scripts uses them."""

from fastapi.testclient import TestClient

from tests.app.conftest import Rows


def test_delete_by_page(client: TestClient, rows: Rows) -> None:
    job = rows.job(name="to go")
    run = rows.run(job)
    shown = client.get(f"/jobs/{job}").text
    assert f'href="/delete/{job}"' in shown
    asked = client.get(f"/delete/{job}")
    assert asked.status_code == 200
    assert client.get(f"/v1/jobs/{job}").status_code == 200, "to ask deletes nothing"
    done = client.post(f"/delete/{job}", follow_redirects=False)
    assert (done.status_code, done.headers["location"]) == (303, "/")
    assert client.get(f"/v1/runs/{run}").status_code == 404
    assert client.get(f"/delete/{job}").status_code == 404


def test_what_depends_on_it_is_shown(client: TestClient, rows: Rows) -> None:
    job = rows.job(status="running")
    run = rows.run(job, status="running")
    asked = client.get(f"/delete/{job}").text
    assert f'href="/runs/{run}"' in asked
    assert 'name="cancel"' in asked
    assert client.post(f"/delete/{job}").status_code == 409
    done = client.post(f"/delete/{job}", data={"cancel": "true"}, follow_redirects=False)
    assert done.status_code == 303


def test_archive_by_page(client: TestClient, rows: Rows) -> None:
    job = rows.job(name="to hide")
    rows.run(job, name="to hide")
    assert "to hide" in client.get("/").text
    assert "Archive" in client.get(f"/jobs/{job}").text
    client.post(f"/archive/{job}")
    assert "to hide" not in client.get("/").text
    assert "to hide" in client.get("/?archived=true").text
    client.post(f"/archive/{job}", data={"undo": "true"})
    assert "to hide" in client.get("/").text


def test_another_site_s_form_is_refused(client: TestClient, rows: Rows) -> None:
    job = rows.job()
    refused = client.post(f"/delete/{job}", headers={"Origin": "https://example.org"})
    assert refused.status_code == 403
    assert client.get(f"/v1/jobs/{job}").status_code == 200
