"""What the project relies on in a Qdrant server, embedded or not: every endpoint and every error."""

import math
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

NewName = Callable[[], str]
A_UUID = "936da01f-9abd-4d9d-80c7-02af85c822a8"

# Unit vectors at growing angles from the first: nearness to point 1 falls with the id.
FAN = {i: [math.cos(i * 0.2), math.sin(i * 0.2), 0.0, 0.0] for i in range(1, 8)}


def fill(client: QdrantClient, collection: str, payloads: dict[int, dict[str, Any]] | None = None) -> None:
    client.upsert(
        collection,
        [models.PointStruct(id=i, vector=vector, payload=(payloads or {}).get(i)) for i, vector in FAN.items()],
        wait=True,
    )


def all_ids(client: QdrantClient, collection: str, where: models.Filter | None = None) -> list[Any]:
    records, following = client.scroll(collection, scroll_filter=where, limit=1000)
    assert following is None
    return [record.id for record in records]


def must(*conditions: models.Condition) -> models.Filter:
    return models.Filter(must=list(conditions))


def field(key: str, **condition: Any) -> models.FieldCondition:
    return models.FieldCondition(key=key, **condition)


def refused(status: int, message: str, call: Callable[[], object]) -> None:
    with pytest.raises(UnexpectedResponse) as caught:
        call()
    assert caught.value.status_code == status
    assert message in caught.value.structured()["status"]["error"]


# Server


def test_the_client_takes_the_server_for_a_compatible_qdrant(client: QdrantClient) -> None:
    info = client.info()
    assert "qdrant" in info.title
    assert int(info.version.split(".")[1]) >= 16


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/livez"])
def test_the_health_checks_answer_200(http: httpx.Client, path: str) -> None:
    assert http.get(path).status_code == 200


def test_an_answer_has_result_status_and_time(http: httpx.Client) -> None:
    answer = http.get("/collections").json()
    assert answer["status"] == "ok"
    assert answer["time"] >= 0
    assert "collections" in answer["result"]


def test_an_unknown_path_is_404(http: httpx.Client) -> None:
    assert http.get("/no/such/path").status_code == 404


# Collections


@pytest.mark.parametrize("distance", list(models.Distance))
def test_a_collection_reports_what_it_was_created_with(
    client: QdrantClient, unused_name: NewName, distance: models.Distance
) -> None:
    name = unused_name()
    assert client.create_collection(
        name,
        vectors_config=models.VectorParams(size=3, distance=distance),
        hnsw_config=models.HnswConfigDiff(m=8),
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=50_000),
        on_disk_payload=True,
        metadata={"model": "some-model"},
    )
    info = client.get_collection(name)
    vectors = info.config.params.vectors
    assert isinstance(vectors, models.VectorParams)
    assert (vectors.size, vectors.distance) == (3, distance)
    assert info.config.hnsw_config.m == 8
    assert info.config.optimizer_config.indexing_threshold == 50_000
    assert info.config.params.on_disk_payload is True
    assert info.config.metadata == {"model": "some-model"}
    assert info.status == models.CollectionStatus.GREEN
    assert info.points_count == 0
    assert info.payload_schema == {}


def test_a_collection_exists_and_is_listed_until_it_is_deleted(client: QdrantClient, unused_name: NewName) -> None:
    name = unused_name()
    assert not client.collection_exists(name)
    client.create_collection(name, vectors_config=models.VectorParams(size=4, distance=models.Distance.DOT))
    assert client.collection_exists(name)
    assert name in [collection.name for collection in client.get_collections().collections]
    assert client.delete_collection(name) is True
    assert not client.collection_exists(name)
    assert client.delete_collection(name) is False


def test_creating_an_existing_collection_is_409(client: QdrantClient, collection: str) -> None:
    refused(
        409,
        f"Collection `{collection}` already exists!",
        lambda: client.create_collection(
            collection, vectors_config=models.VectorParams(size=4, distance=models.Distance.COSINE)
        ),
    )


def test_a_vector_size_of_zero_is_422(http: httpx.Client, unused_name: NewName) -> None:
    answer = http.put(f"/collections/{unused_name()}", json={"vectors": {"size": 0, "distance": "Cosine"}})
    assert answer.status_code == 422
    assert "Validation error in JSON body" in answer.json()["status"]["error"]


def test_the_metadata_of_a_collection_can_be_updated(client: QdrantClient, collection: str) -> None:
    assert client.update_collection(collection, metadata={"model": "other"})
    assert client.update_collection(collection, optimizers_config=models.OptimizersConfigDiff(indexing_threshold=1000))
    config = client.get_collection(collection).config
    assert config.metadata == {"model": "other"}
    assert config.optimizer_config.indexing_threshold == 1000


@pytest.mark.parametrize(
    "call",
    [
        lambda client, name: client.get_collection(name),
        lambda client, name: client.update_collection(name, metadata={}),
        lambda client, name: client.count(name),
        lambda client, name: client.scroll(name),
        lambda client, name: client.retrieve(name, [1]),
        lambda client, name: client.query_points(name, query=[1.0, 0.0, 0.0, 0.0]),
        lambda client, name: client.upsert(name, [models.PointStruct(id=1, vector=[1.0])], wait=True),
        lambda client, name: client.delete(name, [1], wait=True),
        lambda client, name: client.create_payload_index(name, "kind", models.PayloadSchemaType.KEYWORD),
    ],
)
def test_an_unknown_collection_is_404(
    client: QdrantClient, unused_name: NewName, call: Callable[[QdrantClient, str], object]
) -> None:
    name = unused_name()
    refused(404, f"Not found: Collection `{name}` doesn't exist!", lambda: call(client, name))


# Aliases


def create_alias(collection: str, alias: str) -> models.CreateAliasOperation:
    return models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=collection, alias_name=alias))


def delete_alias(alias: str) -> models.DeleteAliasOperation:
    return models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias))


def test_every_point_operation_takes_an_alias(client: QdrantClient, collection: str, unused_name: NewName) -> None:
    alias = unused_name()
    client.update_collection_aliases([create_alias(collection, alias)])
    fill(client, alias, {1: {"kind": "entity"}})
    client.set_payload(alias, {"kind": "chunk"}, [2], wait=True)
    client.create_payload_index(alias, "kind", models.PayloadSchemaType.KEYWORD, wait=True)
    client.delete(alias, [7], wait=True)
    assert client.count(alias).count == 6
    assert [record.payload for record in client.retrieve(alias, [1, 2])] == [{"kind": "entity"}, {"kind": "chunk"}]
    assert [point.id for point in client.query_points(alias, query=1, limit=2).points] == [2, 3]
    assert client.get_collection(alias).points_count == 6
    assert client.collection_exists(alias)
    assert all_ids(client, collection) == [1, 2, 3, 4, 5, 6]


def test_aliases_are_listed_switched_and_renamed_in_one_change(
    client: QdrantClient, collection: str, unused_name: NewName
) -> None:
    other, alias, renamed = unused_name(), unused_name(), unused_name()
    client.create_collection(other, vectors_config=models.VectorParams(size=4, distance=models.Distance.DOT))
    client.update_collection_aliases([create_alias(collection, alias)])
    assert [a.alias_name for a in client.get_collection_aliases(collection).aliases] == [alias]

    client.update_collection_aliases(
        [
            delete_alias(alias),
            create_alias(other, alias),
            models.RenameAliasOperation(rename_alias=models.RenameAlias(old_alias_name=alias, new_alias_name=renamed)),
        ]
    )
    assert client.get_collection_aliases(collection).aliases == []
    every = {a.alias_name: a.collection_name for a in client.get_aliases().aliases}
    assert every.get(renamed) == other
    assert alias not in every


def test_a_deleted_alias_names_nothing(client: QdrantClient, collection: str, unused_name: NewName) -> None:
    alias = unused_name()
    client.update_collection_aliases([create_alias(collection, alias)])
    client.update_collection_aliases([delete_alias(alias), delete_alias(alias)])
    assert client.get_collection_aliases(collection).aliases == []
    refused(404, "doesn't exist!", lambda: client.count(alias))


def test_creating_an_existing_alias_moves_it(client: QdrantClient, collection: str, unused_name: NewName) -> None:
    other, alias = unused_name(), unused_name()
    client.create_collection(other, vectors_config=models.VectorParams(size=4, distance=models.Distance.DOT))
    client.update_collection_aliases([create_alias(collection, alias)])
    client.update_collection_aliases([create_alias(other, alias)])
    assert {a.alias_name: a.collection_name for a in client.get_aliases().aliases}[alias] == other


def test_deleting_a_collection_deletes_its_aliases(client: QdrantClient, unused_name: NewName) -> None:
    name, alias = unused_name(), unused_name()
    client.create_collection(name, vectors_config=models.VectorParams(size=4, distance=models.Distance.DOT))
    client.update_collection_aliases([create_alias(name, alias)])
    client.delete_collection(name)
    assert alias not in [a.alias_name for a in client.get_aliases().aliases]


def test_an_alias_that_is_a_collection_name_is_refused(
    client: QdrantClient, collection: str, unused_name: NewName
) -> None:
    other = unused_name()
    client.create_collection(other, vectors_config=models.VectorParams(size=4, distance=models.Distance.DOT))
    refused(409, "already exists!", lambda: client.update_collection_aliases([create_alias(collection, other)]))


def test_a_collection_named_like_an_alias_is_refused(
    client: QdrantClient, collection: str, unused_name: NewName
) -> None:
    alias = unused_name()
    client.update_collection_aliases([create_alias(collection, alias)])
    refused(
        400,
        "Alias with the same name already exists",
        lambda: client.create_collection(
            alias, vectors_config=models.VectorParams(size=4, distance=models.Distance.DOT)
        ),
    )


def test_an_alias_of_an_unknown_collection_is_404(client: QdrantClient, unused_name: NewName) -> None:
    refused(
        404, "doesn't exist!", lambda: client.update_collection_aliases([create_alias(unused_name(), unused_name())])
    )


def test_renaming_an_unknown_alias_is_404(client: QdrantClient, unused_name: NewName) -> None:
    rename = models.RenameAliasOperation(
        rename_alias=models.RenameAlias(old_alias_name=unused_name(), new_alias_name=unused_name())
    )
    refused(404, "does not exists!", lambda: client.update_collection_aliases([rename]))


# Payload indexes


@pytest.mark.parametrize("type_", list(models.PayloadSchemaType))
def test_a_payload_index_is_reported_until_it_is_deleted(
    client: QdrantClient, collection: str, type_: models.PayloadSchemaType
) -> None:
    result = client.create_payload_index(collection, "key", type_, wait=True)
    assert result.status == models.UpdateStatus.COMPLETED
    assert client.get_collection(collection).payload_schema["key"].data_type == type_
    client.delete_payload_index(collection, "key", wait=True)
    assert "key" not in client.get_collection(collection).payload_schema


def test_a_payload_index_with_parameters_is_reported_with_them(client: QdrantClient, collection: str) -> None:
    client.create_payload_index(
        collection,
        "entity_id",
        models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True),
        wait=True,
    )
    client.create_payload_index(
        collection,
        "title",
        models.TextIndexParams(type=models.TextIndexType.TEXT, tokenizer=models.TokenizerType.WORD, min_token_len=2),
        wait=True,
    )
    schema = client.get_collection(collection).payload_schema
    keyword, text = schema["entity_id"].params, schema["title"].params
    assert isinstance(keyword, models.KeywordIndexParams)
    assert keyword.is_tenant is True
    assert isinstance(text, models.TextIndexParams)
    assert (text.tokenizer, text.min_token_len) == (models.TokenizerType.WORD, 2)


# Writing points


def test_an_upsert_as_points_inserts_and_replaces(client: QdrantClient, collection: str) -> None:
    result = client.upsert(
        collection,
        [
            models.PointStruct(id=1, vector=[0.0, 2.0, 0.0, 0.0], payload={"a": 1, "b": 2}),
            models.PointStruct(id=A_UUID, vector=[1.0, 0.0, 0.0, 0.0]),
        ],
        wait=True,
    )
    assert result.status == models.UpdateStatus.COMPLETED
    client.upsert(collection, [models.PointStruct(id=1, vector=[3.0, 0.0, 0.0, 0.0], payload={"c": 3})], wait=True)
    first, second = client.retrieve(collection, [1, A_UUID], with_vectors=True)
    assert first.payload == {"c": 3}
    assert first.vector == [1.0, 0.0, 0.0, 0.0]
    assert (second.id, second.payload) == (A_UUID, {}) or (second.id, second.payload) == (A_UUID, None)
    assert client.count(collection).count == 2


def test_an_upsert_as_batch_pairs_ids_vectors_and_payloads(client: QdrantClient, collection: str) -> None:
    client.upsert(
        collection,
        models.Batch(ids=[1, A_UUID], vectors=[FAN[1], FAN[2]], payloads=[{"n": 1}, {"n": 2}]),
        wait=True,
    )
    assert {record.id: record.payload for record in client.retrieve(collection, [A_UUID, 1])} == {
        1: {"n": 1},
        A_UUID: {"n": 2},
    }


def test_a_batch_of_unequal_lengths_is_400(http: httpx.Client, collection: str) -> None:
    body = {"batch": {"ids": [1, 2], "vectors": [[1, 0, 0, 0]]}}
    assert http.put(f"/collections/{collection}/points?wait=true", json=body).status_code == 400


def test_a_payload_comes_back_as_it_was_written(client: QdrantClient, collection: str) -> None:
    payload = {
        "text": 'ünï \u2028 \\ "quoted"',
        "int": -3,
        "large": 2**53,
        "float": 0.1,
        "yes": True,
        "none": None,
        "list": ["a", 1, None, {"deep": [1.5]}],
        "nested": {"a": {"b": []}},
        "": "empty key",
    }
    client.upsert(collection, [models.PointStruct(id=1, vector=FAN[1], payload=payload)], wait=True)
    assert client.retrieve(collection, [1])[0].payload == payload


def test_more_points_than_one_engine_call_takes_are_all_written(client: QdrantClient, collection: str) -> None:
    client.upsert(
        collection, [models.PointStruct(id=i, vector=FAN[1 + i % 7], payload={"n": i}) for i in range(2_500)], wait=True
    )
    page, following = client.scroll(collection, limit=2_400)
    assert ([record.id for record in page], following) == (list(range(2_400)), 2_400)
    assert all_ids(client, collection, must(field("n", range=models.Range(gte=1_498, lt=1_502)))) == [
        1_498,
        1_499,
        1_500,
        1_501,
    ]


def test_a_vector_under_cosine_is_stored_as_its_unit_vector(client: QdrantClient, collection: str) -> None:
    client.upsert(collection, [models.PointStruct(id=1, vector=[3.0, 4.0, 0.0, 0.0])], wait=True)
    assert client.retrieve(collection, [1], with_vectors=True)[0].vector == pytest.approx([0.6, 0.8, 0.0, 0.0])


def test_a_zero_vector_under_cosine_is_stored_and_scores_zero(client: QdrantClient, collection: str) -> None:
    client.upsert(collection, [models.PointStruct(id=1, vector=[0.0] * 4)], wait=True)
    (point,) = client.query_points(collection, query=[1.0, 0.0, 0.0, 0.0]).points
    assert (point.id, point.score) == (1, 0.0)


def test_a_point_of_the_wrong_dimension_is_refused_with_status_400(client: QdrantClient, collection: str) -> None:
    points = [models.PointStruct(id=1, vector=FAN[1]), models.PointStruct(id=2, vector=[1.0, 2.0, 3.0])]
    refused(
        400,
        "Wrong input: Vector dimension error: expected dim: 4, got 3",
        lambda: client.upsert(collection, points, wait=True),
    )


def test_valid_points_are_written_though_no_caller_waits_for_them(client: QdrantClient, collection: str) -> None:
    result = client.upsert(collection, [models.PointStruct(id=1, vector=FAN[1])], wait=False)
    assert result.status == models.UpdateStatus.ACKNOWLEDGED
    # A write that is waited for comes after those before it.
    client.upsert(collection, [models.PointStruct(id=2, vector=FAN[2])], wait=True)
    assert all_ids(client, collection) == [1, 2]


def test_a_point_of_the_wrong_dimension_is_refused_without_a_wait_too_and_its_neighbours_with_it(
    client: QdrantClient, collection: str
) -> None:
    points = [models.PointStruct(id=1, vector=[1.0]), models.PointStruct(id=2, vector=FAN[2])]
    refused(400, "Vector dimension error", lambda: client.upsert(collection, points, wait=False))
    assert all_ids(client, collection) == []


@pytest.mark.parametrize("number", ["null", "NaN", "Infinity", "1e999", '"1"', "true", "[1]", "1" + 400 * "0"])
def test_a_vector_with_anything_but_finite_numbers_is_400(http: httpx.Client, collection: str, number: str) -> None:
    body = f'{{"points": [{{"id": 1, "vector": [1, 0, 0, {number}]}}]}}'
    answer = http.put(f"/collections/{collection}/points?wait=true", content=body)
    assert answer.status_code == 400
    assert "Format error in JSON body" in answer.json()["status"]["error"]
    assert http.post(f"/collections/{collection}/points/count", json={}).json()["result"]["count"] == 0


@pytest.mark.parametrize("id_", ["abc", "12", "936da01f-9abd", -1, 2**64])
def test_an_id_that_is_neither_unsigned_integer_nor_uuid_is_400(
    http: httpx.Client, collection: str, id_: object
) -> None:
    body = {"points": [{"id": id_, "vector": [1, 0, 0, 0]}]}
    answer = http.put(f"/collections/{collection}/points?wait=true", json=body)
    assert answer.status_code == 400
    assert "Format error in JSON body" in answer.json()["status"]["error"]


def test_a_named_vector_is_refused_where_there_is_none(client: QdrantClient, collection: str) -> None:
    refused(
        400,
        "Not existing vector name error: other",
        lambda: client.upsert(collection, [models.PointStruct(id=1, vector={"other": FAN[1]})], wait=True),
    )


@pytest.mark.parametrize("body", ["", "{", "[]", '"text"', "{}", '{"points": 1}', '{"points": [{"id": 1}]}'])
def test_a_malformed_upsert_is_400(http: httpx.Client, collection: str, body: str) -> None:
    answer = http.put(
        f"/collections/{collection}/points?wait=true", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400


def test_malformed_json_is_400_with_a_format_error(http: httpx.Client, collection: str) -> None:
    answer = http.post(
        f"/collections/{collection}/points/scroll", content="{no", headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400
    assert answer.json()["status"]["error"].startswith("Format error in JSON body: ")
    assert "result" not in answer.json()


def test_a_wait_that_is_not_a_boolean_is_400(http: httpx.Client, collection: str) -> None:
    body = {"points": [{"id": 1, "vector": [1, 0, 0, 0]}]}
    answer = http.put(f"/collections/{collection}/points?wait=maybe", json=body)
    assert answer.status_code == 400
    assert "query parameters" in answer.json()["status"]["error"]


def test_a_body_above_32_mib_is_refused(http: httpx.Client, collection: str) -> None:
    point = {"id": 1, "vector": [1, 0, 0, 0], "payload": {"text": "x" * (32 * 1024 * 1024)}}
    answer = http.put(f"/collections/{collection}/points?wait=true", json={"points": [point]})
    assert answer.status_code == 400
    assert http.post(f"/collections/{collection}/points/count", json={}).json()["result"]["count"] == 0


STRICT = models.StrictModeConfig(enabled=True, unindexed_filtering_retrieve=False, unindexed_filtering_update=False)


@pytest.fixture
def strict(client: QdrantClient, unused_name: NewName) -> str:
    """A strict collection of 4 dimensions, filled, with an index on `kind` alone."""
    name = unused_name()
    vectors = models.VectorParams(size=4, distance=models.Distance.COSINE)
    client.create_collection(name, vectors_config=vectors, strict_mode_config=STRICT)
    client.create_payload_index(name, "kind", models.PayloadSchemaType.KEYWORD, wait=True)
    fill(client, name, {i: {"kind": "a", "other": "b"} for i in FAN})
    return name


@pytest.mark.parametrize(
    "condition",
    [
        field("other", match=models.MatchValue(value="b")),
        field("kind", match=models.MatchValue(value=3)),
        field("kind", range=models.Range(gte=1)),
        models.IsEmptyCondition(is_empty=models.PayloadField(key="other")),
        models.Filter(must_not=[field("other", match=models.MatchAny(any=["b"]))]),
    ],
)
def test_a_strict_collection_refuses_every_filter_that_no_index_answers(
    client: QdrantClient, strict: str, condition: models.Condition
) -> None:
    by = must(condition)
    calls: list[Callable[[], object]] = [
        lambda: client.scroll(strict, scroll_filter=by),
        lambda: client.count(strict, count_filter=by),
        lambda: client.query_points(strict, query=FAN[1], query_filter=by),
        lambda: client.query_points_groups(strict, group_by="kind", query=FAN[1], query_filter=by),
        lambda: client.delete(strict, models.FilterSelector(filter=by), wait=True),
        lambda: client.set_payload(strict, {"x": 1}, points=by, wait=True),
    ]
    for call in calls:
        refused(400, "Index required but not found for", call)
    assert all_ids(client, strict) == list(FAN)


def test_a_strict_collection_answers_filters_by_id_and_by_indexed_keys(client: QdrantClient, strict: str) -> None:
    by = must(field("kind", match=models.MatchValue(value="a")), models.HasIdCondition(has_id=[2, 3]))
    assert all_ids(client, strict, by) == [2, 3]
    client.create_payload_index(strict, "other", models.PayloadSchemaType.KEYWORD, wait=True)
    assert all_ids(client, strict, must(field("other", match=models.MatchValue(value="b")))) == list(FAN)


def test_strict_mode_can_be_switched_off(client: QdrantClient, strict: str) -> None:
    client.update_collection(strict, strict_mode_config=models.StrictModeConfig(enabled=False))
    assert all_ids(client, strict, must(field("other", match=models.MatchValue(value="b")))) == list(FAN)


def test_points_are_deleted_by_id_and_by_filter(client: QdrantClient, collection: str) -> None:
    fill(client, collection, {5: {"gone": True}, 6: {"gone": True}, 7: {"gone": False}})
    result = client.delete(collection, [1, 2, 999], wait=True)
    assert result.status == models.UpdateStatus.COMPLETED
    client.delete(
        collection,
        models.FilterSelector(filter=must(field("gone", match=models.MatchValue(value=True)))),
        wait=True,
    )
    assert all_ids(client, collection) == [3, 4, 7]


def test_payload_is_set_overwritten_deleted_and_cleared(client: QdrantClient, collection: str) -> None:
    fill(client, collection, {i: {"a": i, "b": {"c": 1}} for i in FAN})

    def payload(id_: int) -> object:
        return client.retrieve(collection, [id_])[0].payload

    client.set_payload(collection, {"a": "set", "new": 1}, [1], wait=True)
    assert payload(1) == {"a": "set", "new": 1, "b": {"c": 1}}
    client.set_payload(collection, {"d": 2}, [1], key="b", wait=True)
    assert payload(1) == {"a": "set", "new": 1, "b": {"c": 1, "d": 2}}
    client.overwrite_payload(collection, {"only": 1}, [2], wait=True)
    assert payload(2) == {"only": 1}
    client.delete_payload(collection, ["a", "absent"], [3], wait=True)
    assert payload(3) == {"b": {"c": 1}}
    client.clear_payload(collection, [4], wait=True)
    assert not payload(4)
    assert payload(5) == {"a": 5, "b": {"c": 1}}


def test_payload_updates_take_a_filter(client: QdrantClient, collection: str) -> None:
    fill(client, collection, {i: {"n": i, "keep": i} for i in FAN})

    def n_is(n: int) -> models.Filter:
        return must(field("n", match=models.MatchValue(value=n)))

    client.set_payload(collection, {"x": 1}, n_is(1), wait=True)
    client.overwrite_payload(collection, {"x": 2}, n_is(2), wait=True)
    client.delete_payload(collection, ["keep"], n_is(3), wait=True)
    client.clear_payload(collection, models.FilterSelector(filter=n_is(4)), wait=True)
    payloads = [record.payload or {} for record in client.retrieve(collection, [1, 2, 3, 4])]
    assert payloads == [{"n": 1, "keep": 1, "x": 1}, {"x": 2}, {"n": 3}, {}]


def test_setting_payload_of_an_unknown_point_is_404(client: QdrantClient, collection: str) -> None:
    refused(404, "No point with id 99 found", lambda: client.set_payload(collection, {"a": 1}, [99], wait=True))


def test_setting_payload_of_nothing_named_is_400(http: httpx.Client, collection: str) -> None:
    assert http.post(f"/collections/{collection}/points/payload", json={"payload": {"a": 1}}).status_code == 400


def test_vectors_are_updated_and_deleted_and_payload_stays(client: QdrantClient, collection: str) -> None:
    fill(client, collection, {1: {"a": 1}})
    client.update_vectors(collection, [models.PointVectors(id=1, vector=[0.0, 0.0, 0.0, 5.0])], wait=True)
    (record,) = client.retrieve(collection, [1], with_vectors=True)
    assert (record.vector, record.payload) == ([0.0, 0.0, 0.0, 1.0], {"a": 1})
    client.delete_vectors(collection, [""], [1], wait=True)
    assert not client.retrieve(collection, [1], with_vectors=True)[0].vector
    refused(
        400,
        "Vector dimension error",
        lambda: client.update_vectors(collection, [models.PointVectors(id=1, vector=[1.0])], wait=True),
    )


def test_a_batch_of_updates_is_applied_in_order(client: QdrantClient, collection: str) -> None:
    results = client.batch_update_points(
        collection,
        [
            models.UpsertOperation(
                upsert=models.PointsList(
                    points=[models.PointStruct(id=i, vector=FAN[i], payload={"a": 1}) for i in (1, 2, 3, 4, 5)]
                )
            ),
            models.SetPayloadOperation(set_payload=models.SetPayload(payload={"b": 2}, points=[1, 2])),
            models.DeletePayloadOperation(delete_payload=models.DeletePayload(keys=["a"], points=[1])),
            models.OverwritePayloadOperation(overwrite_payload=models.SetPayload(payload={"c": 3}, points=[3])),
            models.ClearPayloadOperation(clear_payload=models.PointIdsList(points=[4])),
            models.UpdateVectorsOperation(
                update_vectors=models.UpdateVectors(points=[models.PointVectors(id=1, vector=[0.0, 0.0, 1.0, 0.0])])
            ),
            models.DeleteVectorsOperation(delete_vectors=models.DeleteVectors(points=[2], vector=[""])),
            models.DeleteOperation(delete=models.PointIdsList(points=[5])),
        ],
        wait=True,
    )
    assert [result.status for result in results] == [models.UpdateStatus.COMPLETED] * 8
    records = client.retrieve(collection, [1, 2, 3, 4, 5], with_vectors=True)
    assert [record.payload or {} for record in records] == [{"b": 2}, {"a": 1, "b": 2}, {"c": 3}, {}]
    assert records[0].vector == [0.0, 0.0, 1.0, 0.0]
    assert not records[1].vector


def test_an_upsert_can_be_bound_to_a_filter_and_a_mode(client: QdrantClient, collection: str) -> None:
    fill(client, collection, {1: {"v": 1}, 2: {"v": 2}})
    client.upsert(
        collection,
        [models.PointStruct(id=i, vector=FAN[i], payload={"v": 9}) for i in (1, 2)],
        update_filter=must(field("v", match=models.MatchValue(value=1))),
        wait=True,
    )
    client.upsert(
        collection,
        [models.PointStruct(id=i, vector=FAN[3], payload={"v": 7}) for i in (2, 50)],
        update_mode=models.UpdateMode.INSERT_ONLY,
        wait=True,
    )
    assert [record.payload for record in client.retrieve(collection, [1, 2, 50])] == [{"v": 9}, {"v": 2}, {"v": 7}]


# Reading points


def test_points_are_retrieved_once_each_in_the_order_asked_without_the_unknown(
    client: QdrantClient, collection: str
) -> None:
    fill(client, collection)
    assert [record.id for record in client.retrieve(collection, [3, 1, 99, 3, 2])] == [3, 1, 2]


def test_payload_and_vector_selectors_choose_what_is_returned(client: QdrantClient, collection: str) -> None:
    fill(client, collection, {1: {"a": 1, "b": {"c": 2, "d": 3}}})

    def retrieve(with_payload: Any, with_vectors: Any = False) -> models.Record:
        return client.retrieve(collection, [1], with_payload=with_payload, with_vectors=with_vectors)[0]

    assert retrieve(False).payload is None
    assert retrieve(["b.c"]).payload == {"b": {"c": 2}}
    assert retrieve(models.PayloadSelectorInclude(include=["a"])).payload == {"a": 1}
    assert retrieve(models.PayloadSelectorExclude(exclude=["b"])).payload == {"a": 1}
    assert retrieve(True).vector is None
    assert retrieve(True, True).vector == pytest.approx(FAN[1])


def test_one_point_is_read_by_its_path(http: httpx.Client, client: QdrantClient, collection: str) -> None:
    ids: list[int | str] = [1, A_UUID]
    client.upsert(collection, [models.PointStruct(id=i, vector=FAN[1], payload={"a": 1}) for i in ids])
    for id_ in ids:
        result = http.get(f"/collections/{collection}/points/{id_}").json()["result"]
        assert (result["id"], result["payload"]) == (id_, {"a": 1})
        assert result["vector"] == pytest.approx(FAN[1])
    unknown = http.get(f"/collections/{collection}/points/99")
    assert unknown.status_code == 404
    assert unknown.json()["status"]["error"] == "Not found: Point with id 99 does not exists!"
    assert http.get(f"/collections/{collection}/points/abc").status_code == 400


def test_scroll_pages_through_all_points_in_the_order_of_ids(client: QdrantClient, collection: str) -> None:
    uuids = sorted(str(uuid.uuid4()) for _ in range(3))
    ids: list[int | str] = [*reversed(uuids), 5, 3, 4]
    client.upsert(collection, [models.PointStruct(id=i, vector=FAN[1]) for i in ids], wait=True)
    seen: list[Any] = []
    offset: Any = None
    pages = 0
    while True:
        page, offset = client.scroll(collection, limit=2, offset=offset)
        seen += [record.id for record in page]
        pages += 1
        if offset is None:
            break
    assert seen == [3, 4, 5, *uuids]
    assert pages == 3


def test_scroll_returns_ten_points_with_payload_by_default(http: httpx.Client, collection: str) -> None:
    points = [{"id": i, "vector": [1, 0, 0, 0], "payload": {"i": i}} for i in range(11)]
    http.put(f"/collections/{collection}/points?wait=true", json={"points": points})
    result = http.post(f"/collections/{collection}/points/scroll", json={}).json()["result"]
    assert [point["payload"]["i"] for point in result["points"]] == list(range(10))
    assert result["next_page_offset"] == 10


def test_scroll_is_ordered_by_an_indexed_key(client: QdrantClient, collection: str) -> None:
    fill(client, collection, {i: {"rank": 10 - i} for i in FAN})
    refused(400, "range index", lambda: client.scroll(collection, order_by="rank"))
    client.create_payload_index(collection, "rank", models.PayloadSchemaType.INTEGER, wait=True)
    assert [record.id for record in client.scroll(collection, order_by="rank")[0]] == [7, 6, 5, 4, 3, 2, 1]
    descending = models.OrderBy(key="rank", direction=models.Direction.DESC, start_from=8)
    assert [record.id for record in client.scroll(collection, order_by=descending, limit=2)[0]] == [2, 3]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("points/scroll", {"limit": 0}),
        ("points/query", {"query": [1, 0, 0, 0], "limit": 0}),
        ("points/query/groups", {"query": [1, 0, 0, 0], "group_by": "a", "limit": 0}),
        ("facet", {"key": "a", "limit": 0}),
    ],
)
def test_a_limit_of_zero_is_422(http: httpx.Client, collection: str, path: str, body: dict[str, Any]) -> None:
    answer = http.post(f"/collections/{collection}/{path}", json=body)
    assert answer.status_code == 422
    assert "Validation error in JSON body" in answer.json()["status"]["error"]


def test_count_counts_all_or_what_a_filter_leaves(client: QdrantClient, collection: str) -> None:
    fill(client, collection, {1: {"a": 1}})
    assert client.count(collection, exact=True).count == 7
    some = must(field("a", match=models.MatchValue(value=1)))
    assert client.count(collection, count_filter=some, exact=True).count == 1


def test_facets_count_the_values_of_an_indexed_key(client: QdrantClient, collection: str) -> None:
    fill(client, collection, {1: {"k": "x"}, 2: {"k": "x"}, 3: {"k": "y"}})
    refused(400, "index", lambda: client.facet(collection, "k"))
    client.create_payload_index(collection, "k", models.PayloadSchemaType.KEYWORD, wait=True)
    assert [(hit.value, hit.count) for hit in client.facet(collection, "k", exact=True).hits] == [("x", 2), ("y", 1)]


# Filters

FILTERED = {
    1: {"s": "red", "i": 1, "f": 0.5, "b": True, "t": "quick brown fox", "d": "2024-01-01T00:00:00Z", "l": ["a", "b"]},
    2: {"s": "green", "i": 2, "f": 1.5, "b": False, "t": "lazy dog", "d": "2024-06-01T00:00:00Z", "l": []},
    3: {"s": "blue", "i": 3, "f": 2.5, "n": None, "o": [{"x": 1, "y": 2}, {"x": 2, "y": 1}]},
    4: {"s": ["red", "blue"], "i": [1, 3], "o": [{"x": 1, "y": 1}]},
}


@pytest.mark.parametrize("indexed", [False, True], ids=["unindexed", "indexed"])
@pytest.mark.parametrize(
    ("where", "ids"),
    [
        (must(field("s", match=models.MatchValue(value="red"))), [1, 4]),
        (must(field("i", match=models.MatchValue(value=2))), [2]),
        (must(field("b", match=models.MatchValue(value=True))), [1]),
        (must(field("b", match=models.MatchValue(value=False))), [2]),
        (must(field("s", match=models.MatchAny(any=["red", "green"]))), [1, 2, 4]),
        (must(field("i", match=models.MatchAny(any=[2, 3]))), [2, 3, 4]),
        (must(field("s", match=models.MatchAny(any=[]))), []),
        (must(field("s", match=models.MatchExcept(**{"except": ["red"]}))), [2, 3, 4]),
        (must(field("t", match=models.MatchText(text="fox"))), [1]),
        (must(field("f", range=models.Range(gt=0.5, lte=2.5))), [2, 3]),
        (must(field("d", range=models.DatetimeRange(gte=datetime(2024, 2, 1, tzinfo=UTC)))), [2]),
        (must(field("l", values_count=models.ValuesCount(gte=2))), [1]),
        (must(models.IsEmptyCondition(is_empty=models.PayloadField(key="l"))), [2, 3, 4, 5, 6, 7]),
        (must(models.IsNullCondition(is_null=models.PayloadField(key="n"))), [3]),
        (must(models.HasIdCondition(has_id=[2, 5, 99])), [2, 5]),
        (must(models.HasVectorCondition(has_vector="")), [1, 2, 3, 4, 5, 6, 7]),
        (
            must(
                models.NestedCondition(
                    nested=models.Nested(
                        key="o",
                        filter=must(
                            field("x", match=models.MatchValue(value=1)), field("y", match=models.MatchValue(value=2))
                        ),
                    )
                )
            ),
            [3],
        ),
        (
            models.Filter(
                should=[models.HasIdCondition(has_id=[1]), models.HasIdCondition(has_id=[2])],
                must_not=[models.HasIdCondition(has_id=[2])],
            ),
            [1],
        ),
        (
            models.Filter(
                min_should=models.MinShould(
                    conditions=[
                        field("s", match=models.MatchValue(value="red")),
                        field("i", match=models.MatchValue(value=1)),
                        field("b", match=models.MatchValue(value=True)),
                    ],
                    min_count=2,
                )
            ),
            [1, 4],
        ),
        (must(models.Filter(must_not=[models.HasIdCondition(has_id=[1, 2, 3, 4, 5])])), [6, 7]),
        (models.Filter(must=models.HasIdCondition(has_id=[3])), [3]),
        (models.Filter(), [1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_a_filter_leaves_the_points_that_meet_it(
    client: QdrantClient, collection: str, where: models.Filter, ids: list[int], indexed: bool
) -> None:
    fill(client, collection, FILTERED)
    if indexed:
        for key, type_ in (
            ("s", models.PayloadSchemaType.KEYWORD),
            ("i", models.PayloadSchemaType.INTEGER),
            ("f", models.PayloadSchemaType.FLOAT),
            ("b", models.PayloadSchemaType.BOOL),
            ("t", models.PayloadSchemaType.TEXT),
            ("d", models.PayloadSchemaType.DATETIME),
        ):
            client.create_payload_index(collection, key, type_, wait=True)
    assert all_ids(client, collection, where) == ids
    assert client.count(collection, count_filter=where, exact=True).count == len(ids)
    found = client.query_points(collection, query=FAN[1], query_filter=where, limit=10).points
    assert [point.id for point in found] == ids


@pytest.mark.parametrize(
    "where",
    [
        {"must": [{"key": "a", "match": {"value": 1.5}}]},
        {"must": [{"key": "a", "match": {"any": [1, "x"]}}]},
        {"must": [{"key": "a", "unknown": 1}]},
        {"must": [{"has_id": ["abc"]}]},
        {"must": [{"key": "d", "range": {"gte": "no date"}}]},
        {"unknown": []},
        [],
    ],
)
def test_a_malformed_filter_is_400(http: httpx.Client, collection: str, where: object) -> None:
    answer = http.post(f"/collections/{collection}/points/count", json={"filter": where})
    assert answer.status_code == 400
    assert "Format error in JSON body" in answer.json()["status"]["error"]


# Queries


def test_a_query_by_vector_returns_the_nearest_first_with_their_cosine(client: QdrantClient, collection: str) -> None:
    fill(client, collection, {1: {"a": 1}})
    points = client.query_points(collection, query=[2.0 * x for x in FAN[1]], limit=3).points
    assert [point.id for point in points] == [1, 2, 3]
    assert [point.score for point in points] == pytest.approx([1.0, math.cos(0.2), math.cos(0.4)], abs=1e-5)
    assert points[0].payload == {"a": 1}
    assert points[0].vector is None


@pytest.mark.parametrize(
    ("distance", "nearest", "score"),
    [
        (models.Distance.DOT, 3, 9.0),
        (models.Distance.EUCLID, 2, math.sqrt(2)),
        (models.Distance.MANHATTAN, 2, 2.0),
    ],
)
def test_other_distances_have_their_own_order(
    client: QdrantClient, unused_name: NewName, distance: models.Distance, nearest: int, score: float
) -> None:
    name = unused_name()
    client.create_collection(name, vectors_config=models.VectorParams(size=2, distance=distance))
    vectors = {1: [9.0, -9.0], 2: [2.0, 1.0], 3: [5.0, 4.0]}
    client.upsert(name, [models.PointStruct(id=i, vector=vector) for i, vector in vectors.items()], wait=True)
    (best,) = client.query_points(name, query=[1.0, 1.0] if nearest == 3 else [1.0, 2.0], limit=1).points
    assert best.id == nearest
    assert best.score == pytest.approx(score)


def test_a_query_by_id_leaves_out_the_point_itself(client: QdrantClient, collection: str) -> None:
    fill(client, collection)
    points = client.query_points(collection, query=1, limit=2, search_params=models.SearchParams(exact=True)).points
    assert [point.id for point in points] == [2, 3]
    further = client.query_points(collection, query=1, limit=2, offset=3).points
    assert [point.id for point in further] == [5, 6]
    near = models.QueryRequest(
        query=1, score_threshold=math.cos(0.5), filter=must(models.HasIdCondition(has_id=[1, 3]))
    )
    assert [point.id for point in client.query_batch_points(collection, [near])[0].points] == [3]


def test_a_query_has_threshold_offset_and_selectors(client: QdrantClient, collection: str) -> None:
    fill(client, collection, {i: {"a": i, "b": i} for i in FAN})
    above = client.query_points(collection, query=FAN[1], score_threshold=math.cos(0.5)).points
    assert [point.id for point in above] == [1, 2, 3]
    (point,) = client.query_points(
        collection, query=FAN[1], limit=1, offset=2, with_payload=["a"], with_vectors=True
    ).points
    assert (point.id, point.payload) == (3, {"a": 3})
    assert point.vector == pytest.approx(FAN[3])


def test_a_query_without_a_query_returns_points_in_the_order_of_ids(client: QdrantClient, collection: str) -> None:
    fill(client, collection)
    assert [point.id for point in client.query_points(collection, limit=3, offset=1).points] == [2, 3, 4]


def test_a_query_looks_up_its_point_in_another_collection_or_alias(
    client: QdrantClient, collection: str, unused_name: NewName
) -> None:
    other, alias = unused_name(), unused_name()
    client.create_collection(other, vectors_config=models.VectorParams(size=4, distance=models.Distance.COSINE))
    client.update_collection_aliases([create_alias(other, alias)])
    fill(client, collection)
    client.upsert(other, [models.PointStruct(id=1, vector=FAN[7])], wait=True)
    for source in (other, alias):
        points = client.query_points(
            collection, query=1, lookup_from=models.LookupLocation(collection=source), limit=7
        ).points
        # Point 1 of the searched collection is another point, and is not left out.
        assert [point.id for point in points] == [7, 6, 5, 4, 3, 2, 1]


def test_the_errors_of_a_look_up(client: QdrantClient, collection: str, unused_name: NewName) -> None:
    fill(client, collection)
    missing, narrow = unused_name(), unused_name()
    client.create_collection(narrow, vectors_config=models.VectorParams(size=2, distance=models.Distance.COSINE))
    client.upsert(narrow, [models.PointStruct(id=1, vector=[1.0, 0.0])], wait=True)

    def query(source: str, id_: int) -> object:
        return client.query_points(collection, query=id_, lookup_from=models.LookupLocation(collection=source))

    refused(404, "not found", lambda: query(missing, 1))
    refused(404, "No point with id 2 found", lambda: query(narrow, 2))
    refused(400, "Vector dimension error: expected dim: 4, got 2", lambda: query(narrow, 1))


def test_a_query_by_an_unknown_point_is_404(client: QdrantClient, collection: str) -> None:
    fill(client, collection)
    refused(404, "Not found: No point with id 99 found", lambda: client.query_points(collection, query=99))


def test_a_query_of_the_wrong_dimension_is_400_even_over_no_points(client: QdrantClient, collection: str) -> None:
    refused(
        400,
        "Wrong input: Vector dimension error: expected dim: 4, got 2",
        lambda: client.query_points(collection, query=[1.0, 2.0]),
    )


def test_a_query_using_a_vector_name_is_400(client: QdrantClient, collection: str) -> None:
    refused(
        400,
        "Not existing vector name error: other",
        lambda: client.query_points(collection, query=[1.0, 0.0, 0.0, 0.0], using="other"),
    )


@pytest.mark.parametrize("query", ["[1, 0, 0, null]", "[1, 0, 0, NaN]", '"abc"', "-1", "1.5", "{}"])
def test_a_malformed_query_is_400(http: httpx.Client, collection: str, query: str) -> None:
    answer = http.post(
        f"/collections/{collection}/points/query",
        content=f'{{"query": {query}}}',
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == 400


def test_a_score_threshold_without_a_query_is_400(client: QdrantClient, collection: str) -> None:
    refused(400, "score_threshold", lambda: client.query_points(collection, score_threshold=0.5))


def test_a_query_is_ordered_by_an_indexed_key(client: QdrantClient, collection: str) -> None:
    fill(client, collection, {i: {"rank": 10 - i} for i in FAN})
    client.create_payload_index(collection, "rank", models.PayloadSchemaType.INTEGER, wait=True)
    points = client.query_points(collection, query=models.OrderByQuery(order_by="rank"), limit=3).points
    assert [point.id for point in points] == [7, 6, 5]


def test_a_batch_answers_its_queries_in_order(client: QdrantClient, collection: str) -> None:
    client.upsert(
        collection,
        [models.PointStruct(id=i, vector=[math.cos(i * 0.01), math.sin(i * 0.01), 0.0, 0.0]) for i in range(1, 201)],
        wait=True,
    )
    # More than the server hands to the engine at once.
    answers = client.query_batch_points(
        collection, [models.QueryRequest(query=i, limit=1, offset=1) for i in range(2, 142)]
    )
    found = [answer.points[0].id for answer in answers]
    assert all(id_ in (i - 1, i + 1) for i, id_ in zip(range(2, 142), found, strict=True))


def test_one_wrong_query_fails_its_batch(client: QdrantClient, collection: str) -> None:
    fill(client, collection)
    refused(
        404,
        "No point with id 99 found",
        lambda: client.query_batch_points(collection, [models.QueryRequest(query=i) for i in (1, 99)]),
    )


# Groups


def groups(client: QdrantClient, collection: str, **request: Any) -> dict[Any, list[Any]]:
    answer = client.query_points_groups(collection, **request)
    return {group.id: [hit.id for hit in group.hits] for group in answer.groups}


def test_hits_are_grouped_best_group_first(client: QdrantClient, collection: str) -> None:
    entities = {1: "a", 2: "a", 3: "b", 4: "a", 5: "c", 6: "b"}
    fill(client, collection, {i: {"entity": entity} for i, entity in entities.items()})
    client.create_payload_index(collection, "entity", models.PayloadSchemaType.KEYWORD, wait=True)
    grouped = groups(client, collection, query=FAN[1], group_by="entity", group_size=2, limit=2)
    assert list(grouped.items()) == [("a", [1, 2]), ("b", [3, 6])]


def test_a_group_far_down_the_list_is_found(client: QdrantClient, collection: str) -> None:
    payloads = {i: {"entity": "many"} for i in range(1, 60)} | {60: {"entity": "few"}}
    client.upsert(
        collection,
        [
            models.PointStruct(id=i, vector=[math.cos(i * 0.02), math.sin(i * 0.02), 0.0, 0.0], payload=payload)
            for i, payload in payloads.items()
        ],
        wait=True,
    )
    grouped = groups(client, collection, query=[1.0, 0.0, 0.0, 0.0], group_by="entity", group_size=1, limit=2)
    assert grouped == {"many": [1], "few": [60]}


def test_a_point_belongs_to_the_group_of_each_of_its_values(client: QdrantClient, collection: str) -> None:
    fill(client, collection, {1: {"tags": ["x", "y", "x"]}, 2: {"tags": ["y"]}, 3: {"tags": []}, 4: {"tags": 7}})
    grouped = groups(client, collection, query=FAN[1], group_by="tags", group_size=5)
    assert grouped == {"x": [1], "y": [1, 2], 7: [4]}


def test_a_group_query_takes_an_id_a_filter_and_selectors(client: QdrantClient, collection: str) -> None:
    fill(client, collection, {i: {"entity": {"id": i % 2}, "n": i} for i in FAN})
    answer = client.query_points_groups(
        collection,
        query=1,
        group_by="entity.id",
        group_size=1,
        query_filter=must(field("n", range=models.Range(lt=6))),
        with_payload=["n"],
        with_vectors=True,
    )
    assert [(group.id, group.hits[0].id, group.hits[0].payload) for group in answer.groups] == [
        (0, 2, {"n": 2}),
        (1, 3, {"n": 3}),
    ]
    assert answer.groups[0].hits[0].score == pytest.approx(math.cos(0.2), abs=1e-5)
    assert answer.groups[0].hits[0].vector == pytest.approx(FAN[2])
