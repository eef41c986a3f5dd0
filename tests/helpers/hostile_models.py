"""Model files that fail, lie or leave the process other than they found it."""

from __future__ import annotations

HEAD = """\
import os, sys
import numpy as np
import torch
from torch import nn
import interpret

SHOWN = interpret.Preprocess((12, 12), mean=(0.5,) * 3, std=(0.5,) * 3)

class Net(nn.Module):
    def __init__(self, channels=3, classes=4):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(channels, 4, 3)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(400, classes)

    def plain(self, x):
        return self.fc(self.relu(self.conv(x)).flatten(1))

    forward = plain

def load(net, classes="abcd", **more):
    return interpret.load(net, **({"preprocess": SHOWN, "classes": list(classes)} | more))

def build():
    return load(Net())
"""


def _forward(body: str, build: str = "load(Mine())") -> str:
    lines = "\n".join(f"        {line}" for line in body.splitlines())
    return f"class Mine(Net):\n    def forward(self, x):\n{lines}\n\ndef build():\n    return {build}\n"


def _built(body: str) -> str:
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return f"def build():\n{lines}\n"


DEPENDS = "depend on the image|gradient|no convolution|hidden layer|did not run"
NO_LAYERS = "is (str|set|tuple): a target needs|no convolution|hidden layer|did not run"
NOT_FINITE = "(?i)nan|finite"
ENDS = r"raised SystemExit|ended the program|SystemExit"

MODELS: dict[str, tuple[str, str]] = {
    # name: the code after HEAD, and what the error says where the command fails
    "exits on import": ("sys.exit(0)", ENDS),
    "exits in build": (_built("sys.exit(0)"), ENDS),
    "raises EOFError in build": (_built("raise EOFError('mine')"), "mine"),
    "raises EOFError in forward": (_forward("raise EOFError('mine')"), "mine"),
    "exits in build with a text": (_built("sys.exit('no licence')"), "no licence"),
    "exits in forward": (_forward("sys.exit(0)"), ENDS),
    "exits in a layer": (
        "class Bad(nn.ReLU):\n    def forward(self, x):\n        raise SystemExit\n\n"
        + _built("net = Net()\nnet.relu = Bad()\nreturn load(net)"),
        ENDS,
    ),
    "exits in a hook": (
        _built("net = Net()\nnet.conv.register_forward_hook(lambda *_: sys.exit(0))\nreturn load(net)"),
        ENDS,
    ),
    "exits with the second batch": (
        _forward("if len(x) > 1: sys.exit(0)\nreturn self.plain(x)"),
        ENDS,
    ),
    "exits when set to evaluate": (
        "class Mine(Net):\n    def train(self, mode=True):\n        sys.exit(0)\n\n" + _built("return load(Mine())"),
        ENDS,
    ),
    "raises what is no Exception": (
        "class Odd(BaseException): pass\n\n" + _built("raise Odd('odd')"),
        "Odd: odd",
    ),
    "raises what is no Exception in forward": (
        "class Odd(BaseException): pass\n\n" + _forward("raise Odd('odd')"),
        "Odd: odd",
    ),
    "raises an error that cannot be printed": (
        "class Odd(Exception):\n    def __str__(self): raise ValueError\n\n" + _built("raise Odd"),
        "Odd",
    ),
    "raises an error in forward that cannot be printed": (
        "class Odd(Exception):\n    def __str__(self): raise ValueError\n\n" + _forward("raise Odd"),
        "Odd",
    ),
    "raises in forward": (_forward("raise ValueError('mine')"), "ValueError: mine"),
    "raises StopIteration": (_forward("raise StopIteration"), "StopIteration"),
    "raises with several lines": (_forward("raise ValueError('one\\ntwo')"), "one"),
    "a hook raises": (
        _built(
            "net = Net()\ndef hook(*_): raise KeyError('mine')\nnet.conv.register_forward_hook(hook)\nreturn load(net)"
        ),
        "KeyError",
    ),
    "does not end": (_forward("return self(x)"), "RecursionError"),
    "a syntax error": ("def build(:", "SyntaxError"),
    "is no text": ("\x00\x01", "SyntaxError|null bytes"),
    "imports what is missing": ("import no_such_module_at_all", "ModuleNotFoundError"),
    "builds nothing": (_built("return None"), "must return"),
    "builds a class": (_built("return Net"), "must return"),
    "needs an argument": ("def build(size): pass", "TypeError"),
    "takes one channel": (_built("return load(Net(channels=1))"), "3 channels"),
    "takes another size": (_forward("return self.plain(x[:, :, 1:])"), "does not fit"),
    "without gradients": (_forward("with torch.no_grad():\n    return self.plain(x)"), DEPENDS),
    "in inference mode": (_forward("with torch.inference_mode():\n    return self.plain(x)"), DEPENDS),
    "detached": (_forward("return self.plain(x).detach()"), DEPENDS),
    "through NumPy": (
        _forward("return self.fc(torch.from_numpy(self.conv(x).detach().numpy().clip(0)).flatten(1))"),
        DEPENDS,
    ),
    "through NumPy without detaching": (_forward("return torch.from_numpy(self.plain(x).numpy())"), "numpy|gradient"),
    "returns nothing": (_forward("self.plain(x)"), "None|nothing|returns"),
    "returns a text": (_forward("return 'cat'"), NO_LAYERS),
    "returns an empty tuple": (_forward("return ()"), NO_LAYERS),
    "returns a number": (_forward("return self.plain(x).sum()"), "shape|row for each image|image"),
    "returns a set": (_forward("return {1, 2}"), NO_LAYERS),
    "returns whole numbers": (_forward("return self.plain(x).long()"), "int64|gradient|whole"),
    "returns truths": (_forward("return self.plain(x) > 0"), "bool|gradient"),
    "returns complex numbers": (_forward("return self.plain(x) * 1j"), "complex"),
    "returns a sparse tensor": (_forward("return self.plain(x).to_sparse()"), "sparse|Sparse|layout"),
    "returns five dimensions": (_forward("return self.plain(x)[:, :, None, None, None]"), "shape|dimensions"),
    "returns no rows": (_forward("return self.plain(x)[:0]"), "shape|row|image"),
    "returns no columns": (_forward("return self.plain(x)[:, :0]"), "shape|no |empty|0"),
    "NaN": (_forward("return self.plain(x * float('nan'))"), NOT_FINITE),
    "NaN in the weights": (
        _built("net = Net()\nnet.conv.weight.data.fill_(float('nan'))\nreturn load(net)"),
        NOT_FINITE,
    ),
    "NaN at times": (_forward("x = self.plain(x).clone()\nx[x.sum(1) > 0] = float('nan')\nreturn x"), NOT_FINITE),
    "infinite": (_forward("return self.plain(x) / 0"), NOT_FINITE),
    "infinite inside": (_forward("return self.fc(self.relu(self.conv(x / 0)).flatten(1))"), NOT_FINITE),
    "saturated": (
        _built("net = Net()\nnet.conv.weight.data.zero_()\nnet.conv.bias.data.fill_(3e38)\nreturn load(net)"),
        NOT_FINITE,
    ),
    "nearly constant": (
        _built(
            "net = Net()\nnet.conv.weight.data.mul_(1e-9)\nnet.conv.bias.data.fill_(16777216.0)\nreturn load(net)"
        ),
        NOT_FINITE,
    ),
    "constant": (_forward("return torch.zeros(len(x), 4)"), f"{DEPENDS}|depends on no weights"),
    "tiny": (
        _built("net = Net()\nnet.conv.weight.data.mul_(1e-42)\nnet.conv.bias.data.zero_()\nreturn load(net)"),
        "gradient|depend",
    ),
    "one image at a time": (
        _forward("assert len(x) == 1, 'one only'\nreturn self.plain(x)"),
        "runs one image but not two|one only",
    ),
    "eight images at a time": (
        _forward("return self.fc(self.relu(self.conv(x)).reshape(8, -1))"),
        "does not fit|invalid|batch",
    ),
    "varies by chance": (_forward("return self.plain(x + torch.rand_like(x))"), "another output"),
    "looks at the batch": (_forward("return self.plain(x - x.mean(0))"), "another output"),
    "counts its calls": (
        "calls = 0\n" + _forward("global calls\ncalls += 1\nreturn self.plain(x) * calls"),
        "another output",
    ),
    "writes into its weights": (
        _forward("with torch.no_grad():\n    self.conv.weight.add_(1)\nreturn self.plain(x)"),
        "another output",
    ),
    "writes into its input": (_forward("x.mul_(2)\nreturn self.plain(x)"), "in-place|inplace|leaf"),
    "sets itself to training": (_forward("self.train()\nreturn self.plain(x)"), "another output"),
    "removes its layer": (_forward("y = self.plain(x)\ndel self.conv\nreturn y"), "removes its layer|conv"),
    "fewer classes than outputs": (_built("return load(Net(), classes='ab')"), "2 classes|2 names|classes"),
    "more classes than outputs": (_built("return load(Net(), classes='abcdefg')"), "7 classes|7 names|classes"),
    "classes that are numbers": (_built("return load(Net(), classes=[1, 2, 3, 4])"), "classes"),
    "classes alike": (_built("return load(Net(), classes='aaaa')"), "classes"),
    "two inputs": ("class Mine(Net):\n    def forward(self, x, y): return x\n\n" + _built("return load(Mine())"),
                   "more than one input"),
    "no layers": (_built("return load(nn.Identity(), classes='abc')"), "convolution|hidden layer|Grad-CAM|no weights"),
    "no convolution": (_built("return load(nn.Sequential(nn.Flatten(), nn.Linear(432, 4)))"), "Grad-CAM|convolution"),
    "no channels": (
        _built("return load(nn.Sequential(nn.Conv2d(3, 2, 3), nn.Conv2d(2, 4, 20)))"),
        "too small",
    ),
    "double": (_built("return load(Net().double())"), "float"),
    "half": (_built("return load(Net().half())"), "float|Half|half"),
    "on no device": (_built("return load(Net().to('meta'))"), "meta|numbers"),
    "lazy": (
        _built("return load(nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(4)))"),
        "has no weights before it first runs",
    ),
    "scripted": (_built("return load(torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())))"), "script"),
    "no preprocessing": (_built("return Net()"), "Preprocess|input"),
    "a preprocessing of zero": (
        _built("return load(Net(), preprocess=interpret.Preprocess((12, 12), mean=(0,) * 3, std=(0,) * 3))"),
        "std",
    ),
    "outputs of a kind that is unknown": (_built("return load(Net(), outputs='odds')"), "odds"),
    "cannot be copied": (
        "class Mine(Net):\n    def __deepcopy__(self, memo): raise TypeError('mine')\n\n"
        + _built("return load(Mine())"),
        "mine|copied",
    ),
    "cannot be named": (
        "class Mine(Net):\n    def named_modules(self, *a, **k): raise TypeError('mine')\n\n"
        + _built("return load(Mine())"),
        "mine",
    ),
    "its state raises": (
        "class Mine(Net):\n    def state_dict(self, *a, **k): raise TypeError('mine')\n\n"
        + _built("return load(Mine())"),
        "mine",
    ),
    "a name that raises": (
        "class Odd(nn.ReLU):\n    def __repr__(self): raise TypeError('mine')\n\n"
        + _built("net = Net()\nnet.relu = Odd()\nreturn load(net)"),
        "mine",
    ),
    "changes the folder": (_built("os.chdir('/')\nreturn load(Net())"), "x"),
    "closes the output": (_built("sys.stdout = None\nreturn load(Net())"), "x"),
    "turns gradients off": (_built("torch.set_grad_enabled(False)\nreturn load(Net())"), "x"),
    "makes double the default": (_built("torch.set_default_dtype(torch.float64)\nreturn load(Net())"), "float"),
    "a sequence in time": (
        "class Mine(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.rnn = nn.LSTM(36, 4, batch_first=True)\n\n"
        "    def forward(self, x):\n        return self.rnn(x.transpose(1, 2).flatten(2))[0][:, -1]\n\n"
        + _built("return load(Mine())"),
        "Grad-CAM|convolution|hidden layer|tuple",
    ),
}  # fmt: skip
"""More than eighty, by name."""

VERBS: dict[str, tuple[str, ...]] = {
    "summary": ("summary", "MODEL"),
    "filters": ("filters", "MODEL", "--out", "f.png"),
    "mine": ("mine", "MODEL", "data", "--study", "st", "--workers", "0", "-k", "2"),
    "gallery": ("gallery", "MODEL", "data", "--out", "g", "--workers", "0", "-k", "2"),
    "probe": ("probe", "MODEL", "data", "--transform", "scale", "--values", "1,1.5", "--images", "2", "--out", "p.png"),
    "occlude": ("occlude", "MODEL", "data", "--size", "6", "--stride", "6", "--images", "2", "--out", "o.png"),
    "neighbours": ("neighbours", "MODEL", "data", "-k", "2", "--workers", "0", "--out", "n.png"),
    "attribute": ("attribute", "MODEL", "data", "--images", "2", "--out", "a.png",
                  "--methods", "gradient,guided,gradcam,occlusion"),
    "sanity": ("sanity", "MODEL", "data", "--images", "2", "--steps", "2", "--out", "s.png",
               "--methods", "gradient,deconvnet"),
    "evolve": ("evolve", "MODEL", "data", "--checkpoints", "epochs", "--units", "2", "--workers", "0",
               "--out", "e.png"),
}  # fmt: skip
