"""One update per path, cost levels, EMA: how does the supernet rank the truth's networks, plain and fine-tuned?  usage: super.py NAME updates [option=value ...]"""
import json, os, random, sys, time, copy, math
from pathlib import Path
sys.path.insert(0, "/work/wt/truth"); sys.path.insert(0, "/work/truth")
import torch, torch.nn.functional as F
torch.set_num_threads(1)
from scipy.stats import kendalltau
from nas.cost import cost
from nas.quantities import parse_budgets
from nas.searching.proposals import Band
from nas.spaces.decisions import SearchSpace
from nas.spaces.supernet import Supernet
from nas.training.setting import Given, open_setting
from nas.training.loop import evaluate
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3
import truth as T

name, updates = sys.argv[1], int(sys.argv[2])
opt = dict(lr=2e-3, batch=64, low=0.5, high=1.2, ema=1, seed=0, scale=0.1, depth="uniform", eval_every=5000, aug="pad", smooth=0.0)
for a in sys.argv[3:]:
    k, v = a.split("="); opt[k] = type(opt[k])(v) if not isinstance(opt[k], str) else v
out = Path(f"/work/truth/super/{name}.jsonl"); log = lambda **k: (out.open("a").write(json.dumps(k) + "\n"), print(json.dumps(k)[:300], flush=True))
log(options=opt, updates=updates)
space = SearchSpace.read(Path("/work/truth/cifar_small.yaml"))
setting = open_setting(Given(data="/work/shared/data/cifar10", recipe="/work/wt/truth/recipes/cifar_cpu.yaml", device="cpu", seed=0), space.stride, 32)
images = setting.images
phase = setting.recipe.supernet
batches = images.batches("fit", opt["batch"], opt["seed"], phase.augmentation)
held = list(images.evaluation_batches("held_out", 500))
band = Band(space, cost, parse_budgets(["5MMACs"]), 0.9)
fixed = {n: False for n in space.decisions if n.endswith("sharing")}
sizes = [n for n in space.decisions if n not in space.mixer_decisions and n not in fixed]

def mixers(step):
    chosen = {}
    for n, options in space.mixer_decisions.items():
        c, p = divmod(step, len(options))
        chosen[n] = random.Random(f"{opt['seed']}/{n}/{c}").sample(options, len(options))[p]
    return chosen

def path(step):
    rng = random.Random(f"{opt['seed']}/{step}")
    for attempt in range(5):
        level = rng.uniform(opt["low"], opt["high"])
        values = {**space.random(rng), **mixers(step), **fixed}
        now = band.used(values)
        for n in [n for _ in range(4) for n in rng.sample(sizes, len(sizes))]:
            if abs(now - level) < 0.02: break
            option = rng.choice(space.decisions[n])
            after = band.used({**values, n: option})
            if abs(after - level) < abs(now - level): values, now = {**values, n: option}, after
        if opt["low"] - .05 <= now <= opt["high"] + .05: break
    return space.decode(values)

torch.manual_seed(opt["seed"])
net = Supernet(space.at(setting.frame))
if opt["scale"] != 0.1:
    for n, p in net.named_parameters():
        if n.endswith(".scale"): p.data.fill_(opt["scale"])
optimizer = create_optimizer_v2(net, opt="adamw", lr=opt["lr"], weight_decay=0.05, fused=True)
ema = ModelEmaV3(net, decay=0.999, use_warmup=True)
archs = T.networks(space)

def truth_table():
    rows = {}
    for line in Path("/work/truth/truth.jsonl").read_text().splitlines():
        d = json.loads(line)
        rows.setdefault(d["index"], []).append(d["accuracy"])
    return {k: sum(v) / len(v) for k, v in rows.items()}

def assess(step, model, tag):
    begun = time.monotonic()
    acc = [round(evaluate(model.subnet(a.at(setting.frame)), held), 4) for a in archs]
    t = truth_table(); ks = sorted(t)
    tau = kendalltau([acc[k] for k in ks], [t[k] for k in ks]).statistic if len(ks) > 2 else None
    log(step=step, tag=tag, mean=sum(acc) / len(acc), acc=acc, tau=tau, n=len(ks), seconds=time.monotonic() - begun)

begun = time.monotonic(); lost = 0.0
warm = int(0.05 * updates)
for step, (x, y) in zip(range(updates), batches(0)):
    lr = opt["lr"] * (step + 1) / warm if step < warm else opt["lr"] * 0.5 * (1 + math.cos(math.pi * (step - warm) / (updates - warm)))
    for g in optimizer.param_groups: g["lr"] = lr
    optimizer.zero_grad(set_to_none=True)
    a = path(step)
    loss = F.cross_entropy(net(x, a.at(setting.frame)), y, label_smoothing=opt["smooth"])
    loss.backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimizer.step(); lost += loss.item()
    ema.update(net, step=step)
    if (step + 1) % 500 == 0:
        log(step=step + 1, loss=lost / 500, seconds=round(time.monotonic() - begun)); lost = 0.0
    if (step + 1) % opt["eval_every"] == 0 or step + 1 == updates:
        net.eval(); assess(step + 1, ema.module.eval(), "ema"); net.train()
torch.save({"net": net.state_dict(), "ema": ema.module.state_dict()}, f"/work/truth/super/{name}.pt")
