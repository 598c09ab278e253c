"""Objects of S3, in moto's server on loopback."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import boto3
import pytest
from moto.server import ThreadedMotoServer

from mcp_fastguard.shipping import ShipError
from mcp_fastguard.shipping.cursor import Cursor, cursor_file
from shipping_support import LOG, drain, line, shipper_to, write_checkpoint, write_log

BUCKET = "audit-bucket"


@pytest.fixture(scope="module")
def endpoint():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def store(endpoint, monkeypatch):
    for name, value in (("ACCESS_KEY_ID", "id"), ("SECRET_ACCESS_KEY", "secret"), ("DEFAULT_REGION", "eu-central-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(
        Bucket=BUCKET,
        ObjectLockEnabledForBucket=True,
        CreateBucketConfiguration={"LocationConstraint": "eu-central-1"},
    )
    yield client
    for version in client.list_object_versions(Bucket=BUCKET).get("Versions", []):
        client.delete_object(
            Bucket=BUCKET, Key=version["Key"], VersionId=version["VersionId"], BypassGovernanceRetention=True
        )
    client.delete_bucket(Bucket=BUCKET)
    client.close()


def s3(base, endpoint, **settings):
    given = {"url": endpoint, "allow_http_loopback": True, "bucket": BUCKET, "object_lock": "governance"}
    return shipper_to(base, "s3", **{**given, "retention": 86_400.0 * 30, **settings})


def objects(store):
    return {
        found["Key"]: store.get_object(Bucket=BUCKET, Key=found["Key"])["Body"].read().decode()
        for found in store.list_objects_v2(Bucket=BUCKET).get("Contents", [])
    }


def test_records_are_lines_of_an_object_by_their_numbers(tmp_path, endpoint, store):
    write_checkpoint(write_log(tmp_path, records=3), 3)

    drain(s3(tmp_path, endpoint, prefix="logs/"))

    found = objects(store)
    assert sorted(found) == [
        f"logs/{LOG}/000000000000-000000000002.jsonl",
        f"logs/{LOG}/checkpoint-000000000003.jsonl",
    ]
    assert found[f"logs/{LOG}/000000000000-000000000002.jsonl"] == f"{line(0)}\n{line(1)}\n{line(2)}\n"


def test_objects_are_locked_until_their_time_is_over(tmp_path, endpoint, store):
    write_log(tmp_path, records=1)
    before = datetime.now(UTC)

    drain(s3(tmp_path, endpoint))

    [key] = objects(store)
    found = store.head_object(Bucket=BUCKET, Key=key)
    assert found["ObjectLockMode"] == "GOVERNANCE"
    until = found["ObjectLockRetainUntilDate"]
    assert before + timedelta(days=30) - timedelta(seconds=2) <= until <= datetime.now(UTC) + timedelta(days=30)
    with pytest.raises(store.exceptions.ClientError, match="AccessDenied"):
        store.delete_object(Bucket=BUCKET, Key=key, VersionId=found["VersionId"])


def test_objects_are_not_locked_where_the_lock_is_off(tmp_path, endpoint, store):
    write_log(tmp_path, records=1)

    drain(s3(tmp_path, endpoint, object_lock="off", retention=None))

    [key] = objects(store)
    assert "ObjectLockMode" not in store.head_object(Bucket=BUCKET, Key=key)


def test_batch_that_comes_twice_stands_beside_the_first(tmp_path, endpoint, store):
    """Nothing that is locked is written over; who reads tells the two by their numbers."""
    write_log(tmp_path, records=2)
    drain(s3(tmp_path, endpoint))
    cursor_file(tmp_path, "test").unlink()
    write_log(tmp_path, records=1, first=2)

    drain(s3(tmp_path, endpoint))

    assert sorted(objects(store)) == [
        f"{LOG}/000000000000-000000000001.jsonl",
        f"{LOG}/000000000000-000000000002.jsonl",
    ]


def test_bucket_that_is_not_there_is_a_failure_that_is_tried_again(tmp_path, endpoint, store):
    write_log(tmp_path, records=1)

    assert s3(tmp_path, endpoint, bucket="no-such-bucket").step() > 0
    assert "NoSuchBucket" in Cursor.read(cursor_file(tmp_path, "test")).last_error
    drain(s3(tmp_path, endpoint))

    assert len(objects(store)) == 1


def test_endpoint_that_is_away_is_a_failure(tmp_path, store):
    write_log(tmp_path, records=1)

    assert s3(tmp_path, "http://127.0.0.1:1").step() > 0
    assert "EndpointConnectionError" in Cursor.read(cursor_file(tmp_path, "test")).last_error


def test_shipper_without_boto3_says_what_to_install(tmp_path, monkeypatch):
    import sys

    monkeypatch.delitem(sys.modules, "mcp_fastguard.shipping.s3", raising=False)
    monkeypatch.setitem(sys.modules, "boto3", None)

    with pytest.raises(ShipError, match=r"mcp-fastguard\[s3\]"):
        shipper_to(tmp_path, "s3", bucket=BUCKET)
