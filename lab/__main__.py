"""`python lab <command>`, with ComfyUI on PYTHONPATH: make the demo model, its tables and the examples again."""
import argparse
import importlib.util
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def load_pack():
    """The pack as package "pack". Its root must stay off sys.path, where its nodes/ would hide ComfyUI's nodes.py."""
    sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() not in (ROOT, ROOT / "lab")]
    spec = importlib.util.spec_from_file_location("pack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    module = sys.modules["pack"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def load_host():
    """ComfyUI's modules. Without a GPU its memory management has to be told so before anything else is imported."""
    import torch
    from comfy.cli_args import args
    args.cpu = not torch.cuda.is_available()


def train(args):
    import torch.multiprocessing as processes
    from pack.lab.train import train
    args.command = " ".join(["python", "lab", *sys.argv[1:]])
    args.meet = os.path.join(tempfile.mkdtemp(), "meet")
    processes.start_processes(train, (args,), args.processes, start_method="fork")


def null_chance(args):
    from pack.lab.null_chance import report
    report(args.steps, args.n, args.minutes)


def single_pass(args):
    from pack.lab import single_pass
    if args.train:
        single_pass.train(args.train)
    else:
        single_pass.report(n=args.n, prediction=args.prediction)


def superconditioning(args):
    from pack.lab.superconditioning_example import report
    report()


def judge(args):
    from pack.lab.train_judge import train
    train()


def noisy_judge(args):
    from pack.lab.train_noisy_judge import train
    train()


def classifier(args):
    from pack.lab.classifier import report
    report(args.n)


def sweep(args):
    from pack.lab.sweep import report
    report(scales=args.scales, n=args.n, steps=args.steps, prediction=args.prediction, nodes=args.node)


def negatives(args):
    from pack.lab.negatives import report
    report(n=args.n)


def dropout(args):
    from pack.lab.dropout import report
    report(args.steps, args.n)


def edit(args):
    from pack.lab.edit import report
    report(args.n, args.steps, args.cfg)


def order(args):
    from pack.lab.order import report
    report()


def mixture(args):
    from pack.lab.mixture.report import report
    report(args.out, args.seeds, args.n)


def pareto(args):
    from pack.lab.pareto.run import report
    report(args)


def pareto_overview(args):
    from pack.lab.pareto import overview
    overview.draw({title: overview.read(path) for title, path in args.runs}, args.out)


def pareto_results(args):
    from pack.lab.pareto import pages
    pages.keep(args.runs)


def hard(args):
    from pack.lab.hard.run import run
    run(args)


def bench(args):
    from pack.lab.bench import bench
    bench(args)


def speed(args):
    from pack.lab.speed import speed
    speed(args.repeats)


def strength(args):
    from pack.lab.strength import report
    report(ROOT / "output" / "strength.png")


def preset(args):
    from pack.lab.preset import report
    report(args.family, args.style)


def workflows(args):
    from pack.lab.workflows import write
    write()


def screens(args):
    from pack.lab.screens import make
    make()


def strips(args):
    from pack.lab import figures, strips
    strips.write(args.nodes)
    figures.write(args.nodes)


def brand(args):
    from pack.lab.brand import write
    write()


def schema(args):
    from pack.lab.schema import write
    write()


def main():
    parser = argparse.ArgumentParser(prog="python lab", description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("train", help="train the model")
    command.add_argument("--minutes", type=float, default=79, help="wall time, decay included")
    command.add_argument("--steps", type=int, default=0, help="instead of --minutes, for the same run on any machine")
    command.add_argument("--decay", type=float, default=.4, help="share of the run in which the rate falls to zero")
    command.add_argument("--batch", type=int, default=64)
    command.add_argument("--processes", type=int, default=2)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--average", type=float, default=.998, help="of the weights: how much of it each step keeps")
    command.add_argument("--null", type=float, default=0.1, help="share of samples that lose their caption")
    command.add_argument("--both", action="store_true", help="predict with the prompt and without it, in twice the channels; "
                         "with --null 0")
    command.add_argument("--out", default=str(ROOT / "nodes" / "demo" / "model.safetensors"))
    command.add_argument("--log", default=str(ROOT / "lab" / "training.jsonl"))
    command.set_defaults(run=train)
    command = commands.add_parser("null_chance", help="train at several shares of dropped captions, and measure guidance")
    command.add_argument("--steps", type=int, default=700, help="of each training, 64 images each (default: 700)")
    command.add_argument("--n", type=int, default=256, help="images per scale")
    command.add_argument("--minutes", type=float, default=float("inf"), help="begin nothing more after these")
    command.set_defaults(run=null_chance)
    command = commands.add_parser("single_pass", help="compare guidance in one pass with guidance in two")
    command.add_argument("--train", type=int, default=0, metavar="STEPS", help="train the second half instead")
    command.add_argument("--n", type=int, default=512, help="images per scale")
    command.add_argument("--prediction", choices=["v", "eps", "flow"], default="v")
    command.set_defaults(run=single_pass)
    command = commands.add_parser("superconditioning", help="train a network of points that predicts both at once, in seconds")
    command.set_defaults(run=superconditioning)
    command = commands.add_parser("judge", help="train the judge that the sweep measures with")
    command.set_defaults(run=judge)
    command = commands.add_parser("noisy_judge", help="train the classifier that knows noise")
    command.set_defaults(run=noisy_judge)
    command = commands.add_parser("classifier", help="measure guidance by a classifier of noisy pictures against CFG")
    command.add_argument("--n", type=int, default=128, help="images per setting")
    command.set_defaults(run=classifier)
    command = commands.add_parser("sweep", help="measure samples at several guidance scales")
    command.add_argument("--scales", type=float, nargs="+", default=[1, 1.5, 2, 3, 4, 6, 8, 12, 16])
    command.add_argument("--n", type=int, default=512, help="images per scale")
    command.add_argument("--steps", type=int, default=16)
    command.add_argument("--prediction", choices=["v", "eps", "flow"], default="v")
    command.add_argument("--node", action="append", default=[], help="one more node on the wire: 'GuidanceTSG scale=3'")
    command.set_defaults(run=sweep)
    command = commands.add_parser("negatives", help="measure what a negative does at cfg 1")
    command.add_argument("--n", type=int, default=512, help="images per setting")
    command.set_defaults(run=negatives)
    command = commands.add_parser("dropout", help="measure what losing captions in training does to a LoRA")
    command.add_argument("--steps", type=int, default=150, help="of four pictures each")
    command.add_argument("--n", type=int, default=128, help="images per scale")
    command.set_defaults(run=dropout)
    command = commands.add_parser("edit", help="measure null-text inversion and edits by the prompt")
    command.add_argument("--n", type=int, default=24, help="pictures")
    command.add_argument("--steps", type=int, default=16)
    command.add_argument("--cfg", type=float, default=3.0)
    command.set_defaults(run=edit)
    command = commands.add_parser("order", help="measure which nodes may be swapped")
    command.set_defaults(run=order)
    command = commands.add_parser("mixture", help="hold what is claimed of strategies against an exact model")
    command.add_argument("--seeds", type=int, default=16)
    command.add_argument("--n", type=int, default=512, help="samples for each seed")
    command.add_argument("--out", default=str(ROOT / "lab" / "mixture" / "results"))
    command.set_defaults(run=mixture)
    command = commands.add_parser("pareto", help="compare every strategy with plain CFG of equal alignment")
    command.add_argument("--prediction", choices=["v", "eps", "flow"], default="eps")
    command.add_argument("--strategies", nargs="+", default=[], help="only those with these words in their titles")
    command.add_argument("--prompts", default="256", help="so many prompts of the demo model's, or a file with one a line")
    command.add_argument("--each", type=int, default=4, help="images of each prompt")
    command.add_argument("--steps", type=int, default=12)
    command.add_argument("--seed", type=int, default=0, help="of the first prompt; each next one has the next")
    command.add_argument("--minutes", type=float, default=float("inf"), help="start no job after these; 0 shows what is there")
    command.add_argument("--workers", type=int, default=2, help="processes; 0 is this one (default: 2)")
    command.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask cluster, instead of --workers")
    command.add_argument("--server", metavar="URL", action="append", default=[],
                         help="a ComfyUI that has this pack, instead of --workers; may be repeated")
    command.add_argument("--workflow", metavar="FILE", help="your own, in API format with one KSampler")
    command.add_argument("--scorer", default="demo", help="a Python file with score(pictures, prompts): lab/pareto/scorers.py")
    command.add_argument("--real", metavar="FOLDER", help="real images, for the Frechet distance of your own workflow")
    command.add_argument("--out", type=Path, default=ROOT / "output" / "pareto")
    command.set_defaults(run=pareto)
    command = commands.add_parser("pareto_overview", help="draw what runs of pareto have found beside each other")
    command.add_argument("runs", nargs="+", type=lambda run: run.split("=", 1), metavar="TITLE=points.csv")
    command.add_argument("--out", type=Path, default=ROOT / "output" / "pareto.png")
    command.set_defaults(run=pareto_overview)
    command = commands.add_parser("pareto_results", help="keep what runs of pareto have found, and tell it in the help pages")
    command.add_argument("runs", nargs="+", type=lambda run: run.split("=", 1), metavar="KIND=FOLDER")
    command.set_defaults(run=pareto_results)
    command = commands.add_parser("hard", help="try to bring down a server with the pack")
    command.add_argument("what", choices=["fuzz", "soak", "interrupt", "restart", "clients", "memory"],
                         help="prompts, right and wrong; right ones, with a look at memory; a run that is interrupted at each "
                         "step; a server that is killed; eight clients at once; too little memory")
    command.add_argument("--count", type=int, default=500, help="prompts (default: 500)")
    command.add_argument("--seed", type=int, default=0, help="of the prompts that are drawn")
    command.add_argument("--first", type=int, default=0, help="the number of the first prompt, to see one of them again")
    command.add_argument("--server", metavar="URL", help="a ComfyUI that has this pack, for fuzz")
    command.add_argument("--out", type=Path, default=ROOT / "output" / "hard", help="where prompts with a finding are kept")
    command.set_defaults(run=hard)
    command = commands.add_parser("bench", help="time the strategies' maths, and measure its memory")
    command.add_argument("--repeats", type=int, default=25)
    command.set_defaults(run=bench)
    command = commands.add_parser("speed", help="time the bridge against ComfyUI's own nodes")
    command.add_argument("--repeats", type=int, default=15)
    command.set_defaults(run=speed)
    command = commands.add_parser("strength", help="measure how strongly each scale guides, over the steps")
    command.set_defaults(run=strength)
    command = commands.add_parser("workflows", help="write the example workflows from the menu")
    command.set_defaults(run=workflows)
    command = commands.add_parser("screens", help="take the pictures of the readme and of the template browser")
    command.set_defaults(run=screens)
    command = commands.add_parser("strips", help="draw the pictures of the help pages")
    command.add_argument("nodes", nargs="*", help="only theirs, by their ids (default: all)")
    command.set_defaults(run=strips)
    command = commands.add_parser("brand", help="draw the registry's icon and banner")
    command.set_defaults(run=brand)
    command = commands.add_parser("schema", help="write down what every node takes and gives")
    command.set_defaults(run=schema)
    command = commands.add_parser("preset", help="print what is published for a model family, as nodes in API format")
    command.add_argument("family", help="as on the node Guidance for this model: 'SDXL base'")
    command.add_argument("--style", choices=["as published", "faithful", "natural", "fast"], default="as published")
    command.set_defaults(run=preset)
    args = parser.parse_args()
    load_host()
    load_pack()
    args.run(args)


if __name__ == "__main__":
    main()
