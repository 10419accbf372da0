import torch

from priorzoo.cli.main import main
from priorzoo.inference import save, serve


def test_a_run_is_exported_by_the_command_line(zoo, tmp_path, capsys):
    model, guide = zoo["gmvae"].pair()
    save(tmp_path / "run", model, guide)
    file = tmp_path / "model.pt2"
    assert main(["export", str(tmp_path / "run"), str(file)]) == 0
    assert "x -> probabilities, codes, reconstruction" in capsys.readouterr().out
    x = zoo["gmvae"].rows(3)
    found = torch.export.load(file).module()(x)
    expected = list(serve(model, guide)(x).values())
    torch.testing.assert_close(list(found), expected)
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "model.txt")]) == 2
    assert "ends with .onnx or .pt2" in capsys.readouterr().err
