"""Reference numbers of `recent.json`: losses and gradients in float64, by JAX, from the papers' definitions alone.

    python3 -m venv venv && venv/bin/pip install jax && venv/bin/python tests/golden/recent.py > tests/golden/recent.json

Inputs and parameters are functions of their names, as in the other files of this folder: `fill` below. Nothing here is
part of the tests, which read the numbers.
"""

import json

import jax
import jax.numpy as np
import numpy

jax.config.update("jax_enable_x64", True)

MASK = (1 << 64) - 1
BATCH, CLASSES = 8, 10
LABELS = np.array([(3 * i + 1) % CLASSES for i in range(BATCH)])


def fill(name, shape, lo, hi):
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 & MASK
    values = []
    for k in range(int(numpy.prod(shape))):
        z = seed + (k + 1) * 0x9E3779B97F4A7C15 & MASK
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
        z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
        values.append(lo + (hi - lo) * ((z ^ z >> 31) >> 11) * 2.0**-53)
    return numpy.array(values).reshape(shape)


def parameter(name, shape):
    if len(shape) > 1:
        bound = (3.0 / numpy.prod(shape[1:])) ** 0.5
        return fill(name, shape, -bound, bound)
    if "bn" in name and name.endswith("weight"):
        return fill(name, shape, 0.5, 1.5)
    return fill(name, shape, -0.1, 0.1)


def digest(name, gradient):
    flat = numpy.asarray(gradient).reshape(-1)
    direction = fill("probe:" + name, flat.shape, -1.0, 1.0)
    shape = list(gradient.shape)
    return {"shape": shape, "l2": float((flat**2).sum() ** 0.5), "sum": float(flat.sum()), "probe": float(flat @ direction)}


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def nkd(config, student, teacher, _):
    s, t = softmax(student["logits"]), softmax(teacher["logits"])
    rows = np.arange(BATCH)
    target = -(t[rows, LABELS] * np.log(s[rows, LABELS])).mean()
    # The other classes by themselves, nine of ten.
    rest = numpy.array([[c for c in range(CLASSES) if c != label] for label in numpy.asarray(LABELS)])
    others = lambda z: softmax(np.take_along_axis(z, rest, 1) / config["temperature"])
    cross = -(others(teacher["logits"]) * np.log(others(student["logits"]))).sum(1).mean()
    return [target, config["gamma"] * config["temperature"] ** 2 * cross]


def wsld(config, student, teacher, _):
    t = config["temperature"]
    hard = lambda z: -np.log(softmax(z)[np.arange(BATCH), LABELS])
    ratio = jax.lax.stop_gradient(hard(student["logits"])) / (hard(teacher["logits"]) + 1e-7)
    soft = -(softmax(teacher["logits"] / t) * np.log(softmax(student["logits"] / t))).sum(1)
    return [t**2 * ((1 - np.exp(-ratio)) * soft).mean()]


def ttm(config, student, teacher, _):
    powers = softmax(teacher["logits"]) ** config["exponent"]
    total = powers.sum(1)
    p = powers / total[:, None]
    divergence = (p * (np.log(p) - np.log(softmax(student["logits"])))).sum(1)
    return [(divergence * (total if config["weighted"] else 1.0)).mean()]


def ickd(_, student, teacher, own):
    x = np.einsum("bchw,dc->bdhw", student["stage2"], own["0.conv.weight"][:, :, 0, 0])
    mean, variance = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
    x = (x - mean) / np.sqrt(variance + 1e-5)
    x = x * own["0.bn.weight"][None, :, None, None] + own["0.bn.bias"][None, :, None, None]
    total = 0.0
    for b in range(BATCH):
        grams = []
        for side in (x[b], teacher["stage2"][b]):
            flat = side.reshape(side.shape[0], -1)
            gram = flat @ flat.T
            grams.append(gram / np.sqrt((gram**2).sum(1, keepdims=True)))
        total += ((grams[0] - grams[1]) ** 2).sum()
    return [total / (BATCH * x.shape[1])]


def itrd(config, student, teacher, own):
    s, t = student["pooled"], teacher["pooled"]
    embedded = s @ own["embed.weight"].T + own["embed.bias"]
    standard = lambda x: (x - x.mean(0)) / x.std(0, ddof=1)
    c = (standard(embedded) * standard(t)).sum(0) / BATCH
    correlation = np.log2((np.abs(c - 1) ** (2 * config["alpha"])).sum())
    unit = lambda x: x / np.sqrt((x**2).sum(1, keepdims=True))
    u, v = unit(s if s.shape[1] == t.shape[1] else embedded), unit(t)
    of_student, of_teacher = u @ u.T, v @ v.T
    joint = of_student * of_teacher
    purity = lambda g: ((g / np.trace(g)) ** 2).sum()
    mutual = purity(of_student) - purity(joint)
    return [config["correlation"] * correlation, config["mutual"] * mutual]


SETTINGS = {
    # Other widths, other heights in the last stage.
    "n": ([[8, 16, 16], [16, 8, 8], [24, 8, 8], [24]], [[16, 16, 16], [32, 8, 8], [40, 4, 4], [40]]),
    # One width.
    "o": ([[8, 16, 16], [16, 8, 8], [32, 4, 4], [32]], [[16, 16, 16], [32, 8, 8], [32, 4, 4], [32]]),
}
CASES = [
    ("nkd", nkd, {"gamma": 1.5, "temperature": 1.0}, "logits"),
    ("nkd", nkd, {"gamma": 3.5, "temperature": 3.0}, "logits"),
    ("wsld", wsld, {"temperature": 4.0}, "logits"),
    ("ttm", ttm, {"exponent": 0.1, "weighted": False}, "logits"),
    ("ttm", ttm, {"exponent": 0.2, "weighted": True}, "logits"),
    ("ickd", ickd, {}, "stage2"),
    ("itrd", itrd, {"correlation": 2.0, "mutual": 1.0, "alpha": 1.01}, "pooled"),
    ("itrd", itrd, {"correlation": 2.0, "mutual": 0.05, "alpha": 1.5}, "pooled"),
]


def features(tag, side, shapes):
    names = ["stem"] + [f"stage{i}" for i in range(1, len(shapes) - 1)] + ["pooled"]
    of = lambda i, shape: numpy.maximum(fill(f"{tag}.f{side}{i}", [BATCH, *shape], -0.5, 1.0), 0.0)
    taps = {name: np.array(of(i, shape)) for i, (name, shape) in enumerate(zip(names, shapes))}
    return taps | {"logits": np.array(fill(f"{tag}.logits_{side}", [BATCH, CLASSES], -4.0, 4.0))}


def case(tag, shapes, method, loss, config, used):
    student, teacher = features(tag, "s", shapes[0]), features(tag, "t", shapes[1])
    last, pooled = (shapes[0][2][0], shapes[1][2][0]), (shapes[0][3][0], shapes[1][3][0])
    sizes = {
        "ickd": {"0.conv.weight": [last[1], last[0], 1, 1], "0.bn.weight": [last[1]], "0.bn.bias": [last[1]]},
        "itrd": {"embed.weight": [pooled[1], pooled[0]], "embed.bias": [pooled[1]]},
    }.get(method, {})
    full = lambda name: f"{tag}.{method}.{name}"
    own = {name: np.array(parameter(full(name), shape)) for name, shape in sizes.items()}
    parts = loss(config, student, teacher, own)
    whole = lambda x, own: sum(loss(config, student | {used: x}, teacher, own))
    of_input, of_own = jax.grad(whole, argnums=(0, 1))(student[used], own)
    name = f"{tag}.logits_s" if used == "logits" else f"{tag}.fs{['stem', 'stage1', 'stage2', 'pooled'].index(used)}"
    return {
        "method": method,
        "config": config,
        "parts": [float(part) for part in parts],
        "loss": float(sum(parts)),
        "input_grads": {name: digest(name, of_input)},
        "param_grads": {full(name): digest(full(name), gradient) for name, gradient in of_own.items()},
        "params": [[full(name), shape] for name, shape in sizes.items()],
    }


settings = [
    {
        "tag": tag,
        "batch": BATCH,
        "classes": CLASSES,
        "student_shapes": shapes[0],
        "teacher_shapes": shapes[1],
        "cases": [case(tag, shapes, *each) for each in CASES],
    }
    for tag, shapes in SETTINGS.items()
]
print(json.dumps({"losses": settings}, indent=1))
