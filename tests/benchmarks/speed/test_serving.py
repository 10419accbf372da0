from priorzoo.benchmarks.speed.serving import OUTPUTS, measure


def test_a_graph_is_faster_and_its_export_gives_the_same():
    rows = list(measure("digits-vade", 5))
    assert [row["output"] for row in rows] == list(OUTPUTS)
    for row in rows:
        assert row["graph"][0] < row["programs"][0] / 4
        assert row["difference"] < 1e-5
        assert row["onnx_kib"] > 50
