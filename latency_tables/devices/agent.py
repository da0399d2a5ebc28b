"""The program that runs models and takes times: a process of its own, driven by JSON lines.

Self-contained: the standard library and the runtime, so that the same source works on any machine with a Python. A
crash or a hang of a runtime ends this process and nothing else. Its arguments are a runtime, a number of threads, a
delegate, and the cores to stay on, separated by commas (none: the last ones, as many as threads; ``as started``: those
that something else has put it on). It answers each line on stdin with one on stdout, after the word ``dmask:``, since
other programs may write there too:

    {"do": "describe"}                                {"device": ..., "system": ..., "runtime_version": ...}
    {"do": "survey"}                                  {"device": ..., "python": ..., "versions": {...}, "lacks": {...}}
    {"do": "load", "key": "a", "model": BASE64,
     "quick_s": 4e-5}                                 {}
    {"do": "sample", "key": "a", "seconds": 0.02}     {"wall_ms": [...], "cpu_ms": [...], "loops": 1, "slowed": false,
                                                       "quick_s": 4e-5}
    {"do": "output", "key": "a"}                      {"output": [...]}
    {"do": "shares", "key": "a"}                      {"shares": {"ios16.conv": 0.7, ...}}
    {"do": "unload", "key": "a"}                      {}
    {"do": "meter", "metric": "memory",
     "model": BASE64, "warm_up": BASE64}              {"value": ...}

A model is the content of its file; one of several files is a zip of them. An error that the runtime reports is
answered with ``{"error": "...", "cause": "..."}``; the cause is a word where no model is to blame: one of `TROUBLES`,
why nothing can run at all (``cores``, ``macos``, ``package``), or ``meter``: this machine does not report the metric.
``meter`` needs a process that has loaded no other model. Requests also have a ``limit`` in seconds: soon after
it, a process that hangs ends.
"""

import base64
import collections
import contextlib
import ctypes
import errno
import faulthandler
import gc
import glob
import io
import itertools
import json
import os
import platform
import re
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zipfile

MARK = "dmask:"
AS_STARTED = "as started"
MIN_SAMPLES, MAX_SAMPLES = 5, 30
ERROR, MOST_SAMPLES, MOST_SECONDS = 0.01, 100, 4  # of the median; runs and multiples of the time to reach it
LOOP_SECONDS, MAX_LOOPS = 0.001, 2**16
STEADY = 0.05
MIN_WARM_UP_SECONDS = 0.005  # six runs of a small model are over before the core has left its sleep
PROBE = range(1500)  # additions of a probe, about 40 microseconds
SLOWED = 1.25  # times the quick probes, which are this quantile of the last ones
QUICK, PROBES, MIN_PROBES, REMEMBERED = 0.2, 300, 10, 60
MOST_WAITING, WAITING_SHARE = 2.0, 0.5  # seconds, and a share of the time of everything else
WORTH_WAITING = 0.03  # seconds of samples; a block is sampled for less, but in several rounds
GRACE_SECONDS = 5  # to end in order once stdin has ended
DISTRIBUTIONS = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-silicon"),
    "litert": ("ai-edge-litert", "tflite-runtime"),
    "executorch": ("executorch",),
    "ncnn": ("ncnn",),
    "coreml": ("coremltools",),
}

SYSTEM_CPU = "/sys/devices/system/cpu"
CORES = SYSTEM_CPU + "/cpu[0-9]*"

COREML_UNITS = {"cpu": "CPU_ONLY", "gpu": "CPU_AND_GPU", "npu": "CPU_AND_NE", "all": "ALL"}
DELEGATES = {"coreml": tuple(COREML_UNITS)}  # of the others only the CPU
NCNN_HALF = b"\x47\x6b\x30\x01"  # stands before weights in float16

METERED_RUNS = 3  # of a model whose memory is measured
IDLE_SECONDS, ENERGY_SECONDS = 0.5, 1.0  # the counters of energy are read before and after each of these

MAX_ERROR = 2000  # characters of an error in an answer
TROUBLES = {
    "ENOSPC": "space on its disk",
    "EDQUOT": "space on its disk",
    "EMFILE": "file handles",
    "ENFILE": "file handles",
    "ENOMEM": "memory",
    "EFBIG": "room for files of that size",
    "EROFS": "disk that it may write to",
    "EIO": "disk that works",
}
"""What a machine may be short of, whichever model it runs, by the names of the errors."""
SIGNS = {
    "ENOSPC": ("No usable temporary directory",),  # what Python's tempfile makes of a full disk
    "ENOMEM": ("std::bad_alloc", "MemoryError", "Failed to allocate memory", "DefaultCPUAllocator: can't allocate"),
}
"""Other words for them."""

Model = collections.namedtuple("Model", "run output")
"""A loaded model: runs once; the numbers that come out."""


class CannotRunError(RuntimeError):
    """Nothing can run here; ``cause`` is a word for the reason."""

    def __init__(self, text, cause):
        super().__init__(text)
        self.cause = cause


def trouble_in(text):
    """The name in `TROUBLES` of what a text says that the machine is short of; empty when it says nothing of it."""
    for name in TROUBLES:
        if any(sign in text for sign in (os.strerror(getattr(errno, name)), *SIGNS.get(name, ()))):
            return name
    return ""


def failure(error):
    """The answer for an exception: runtimes wrap what the system told them, in a chain or in words."""
    ours = isinstance(error, CannotRunError)
    text = (str(error) if ours else f"{type(error).__name__}: {error}")[:MAX_ERROR]
    cause, link = getattr(error, "cause", ""), error
    while link is not None and not cause:
        if isinstance(link, MemoryError):
            cause = "ENOMEM"
        elif isinstance(link, OSError) and errno.errorcode.get(link.errno or 0, "") in TROUBLES:
            cause = errno.errorcode[link.errno or 0]
        link = link.__cause__ or link.__context__
    return {"error": text, "cause": cause or trouble_in(text)}


def random_input(shape):
    """The input of every model: the same numbers on every machine, float32 in 0..1."""
    import numpy

    return numpy.random.default_rng(0).random([int(size) for size in shape], dtype=numpy.float32)


def open_onnxruntime(path, threads, delegate):
    """ONNX Runtime, its buffers bound: copying them in and out would count with every block."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read at its import alone: no files, no look-ups of hosts
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    # x86 without VNNI adds pairs of int8 products in 16 bits, which can overflow; verification avoids that, too.
    options.add_session_config_entry("session.x64quantprecision", "1")
    # Many models are loaded at once: without this, the idle thread pool of the one that ran last spins beside the next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    (tensor,) = session.get_inputs()
    binding.bind_cpu_input(tensor.name, random_input(tensor.shape))
    binding.bind_output(session.get_outputs()[0].name)
    return Model(lambda: session.run_with_iobinding(binding), lambda: binding.copy_outputs_to_cpu()[0])


def open_litert(path, threads, delegate):
    """LiteRT's interpreter, which puts what it can on XNNPACK."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        from tflite_runtime.interpreter import Interpreter  # its former name, on older boards

    interpreter = Interpreter(model_path=path, num_threads=threads)
    interpreter.allocate_tensors()
    (tensor,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.set_tensor(tensor["index"], random_input(tensor["shape"]))
    return Model(interpreter.invoke, lambda: interpreter.get_tensor(output["index"]))


def open_executorch(path, threads, delegate):
    """ExecuTorch's program, delegated to XNNPACK when it was exported."""
    import torch
    from executorch.extension.pybindings import portable_lib

    portable_lib._unsafe_reset_threadpool(threads)
    program = portable_lib._load_for_executorch(path)
    image = torch.from_numpy(random_input(program.method_meta("forward").input_tensor_meta(0).sizes()))
    return Model(lambda: program.forward((image,), clone_outputs=False), lambda: program.forward((image,))[0].numpy())


def open_ncnn(path, threads, delegate):
    """ncnn; arithmetic in half precision where the weights are stored so and the processor can."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    with open(os.path.join(path, "model.bin"), "rb") as weights:
        half = weights.read(4) == NCNN_HALF
    for option in ("fp16_packed", "fp16_storage", "fp16_arithmetic"):
        setattr(net.opt, "use_" + option, half)
    for option in ("bf16_packed", "bf16_storage", "vulkan_compute"):
        setattr(net.opt, "use_" + option, False)
    net.load_param(os.path.join(path, "model.param"))
    net.load_model(os.path.join(path, "model.bin"))
    with open(os.path.join(path, "model.param")) as param:
        fields = next(line for line in param if line.startswith("Input ")).split()
    width, height, channels = (int(field.partition("=")[2]) for field in fields if field[:2] in ("0=", "1=", "2="))
    numbers = random_input((channels, height, width))  # a Mat does not keep them alive
    image = ncnn.Mat(numbers).clone()

    def run():
        extractor = net.create_extractor()
        extractor.input("input", image)
        status, output = extractor.extract("output")
        if status:
            raise RuntimeError(f"ncnn ends with status {status}")
        return output

    def output():
        import numpy

        return numpy.array(run())

    run()
    return Model(run, output)


def open_coreml(path, threads, delegate):
    """Core ML by coremltools, on the compute units that the delegate names."""
    import coremltools

    model = coremltools.models.MLModel(path, compute_units=getattr(coremltools.ComputeUnit, COREML_UNITS[delegate]))
    (tensor,) = model.get_spec().description.input
    given = {tensor.name: random_input(tensor.type.multiArrayType.shape)}
    return Model(lambda: model.predict(given), lambda: next(iter(model.predict(given).values())))


def coreml_shares(path, delegate):
    """What Core ML estimates of each kind of operation: its share of the whole, by ``MLComputePlan``."""
    import coremltools
    from coremltools.models.compute_plan import MLComputePlan

    units = getattr(coremltools.ComputeUnit, COREML_UNITS[delegate])
    compiled = coremltools.models.utils.compile_model(path)
    plan = MLComputePlan.load_from_path(compiled, compute_units=units)
    found = collections.Counter()  # type: collections.Counter[str]
    for operation in plan.model_structure.program.functions["main"].block.operations:
        cost = plan.get_estimated_cost_for_mlprogram_operation(operation)
        if cost is not None:
            found[operation.operator_name] += cost.weight
    return dict(found)


OPENERS = {
    "onnxruntime": open_onnxruntime,
    "litert": open_litert,
    "executorch": open_executorch,
    "ncnn": open_ncnn,
    "coreml": open_coreml,
}


def describe(runtime):
    """What this machine is, and the version of its runtime.

    Raises:
        CannotRunError: when the runtime is not installed.
    """
    return dict(machine(), runtime_version=runtime_version(runtime))


def survey():
    """What this machine is, its Python, the versions of the runtimes that it has, and why it lacks the others."""
    versions, lacks = {}, {}
    for runtime in DISTRIBUTIONS:
        try:
            versions[runtime] = runtime_version(runtime)
        except CannotRunError as error:
            lacks[runtime] = {"error": str(error), "cause": error.cause}
    return dict(machine(), python=platform.python_version(), versions=versions, lacks=lacks)


def machine():
    """What this machine is."""
    return {
        "device": f"{processor()} ({platform.machine()})",
        "system": "macOS" if sys.platform == "darwin" else platform.system(),
        "cores": os.cpu_count() or 1,
        "clocks_mhz": clocks_mhz(),
        "cpu": cpu_version(),
        "governor": ", ".join(sorted(set(lines_of(CORES + "/cpufreq/scaling_governor")))),
        "turbo": turbo(),
        "cpu_limit": cpu_limit(),
    }


def processor():
    """The name of the processor, or of the board."""
    with contextlib.suppress(OSError), open("/proc/device-tree/model") as file:
        return file.read().strip("\0\n ")
    if sys.platform == "darwin":  # `platform` says no more than arm
        return subprocess.check_output(["sysctl", "-n", "machdep.cpu.brand_string"], text=True).strip()
    found = {}  # type: dict[str, list[str]]
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            name, _, value = line.partition(":")
            found.setdefault(name.strip(), []).append(value.strip())
    if "model name" in found:
        return found["model name"][0]
    # ARM's numbers, of big cores and little ones
    parts = zip(found.get("CPU implementer", ()), found.get("CPU part", ()))  # noqa: B905 - older Pythons lack `strict`
    kinds = sorted({f"{implementer} {part}" for implementer, part in parts})
    return f"ARM cores {', '.join(kinds)}" if kinds else platform.processor() or "unknown processor"


def clocks_mhz():
    """The highest clock of each core, if the system reports it."""
    return [round(int(line) / 1000) for line in lines_of(CORES + "/cpufreq/cpuinfo_max_freq") if line.isdigit()]


def lines_of(pattern):
    """The first line of each file that matches a pattern, by the numbers of cores; a core that is off has none."""
    found = []
    for path in sorted(glob.glob(pattern), key=lambda path: (len(path), path)):  # cpu2 before cpu10
        with contextlib.suppress(OSError, UnicodeDecodeError), open(path) as file:
            found.append(file.readline().strip())
    return found


def cpu_version():
    """Family, model and stepping of an x86 processor: virtual machines of one name may have others."""
    found = {}  # type: dict[str, str]
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        for line in itertools.takewhile(str.strip, file):  # of the first core
            name, _, value = line.partition(":")
            found[name.strip()] = value.strip()
    named = [(word, found.get(key)) for word, key in (("family", "cpu family"), ("model", "model"), ("stepping",) * 2)]
    return ", ".join("{} {}".format(*pair) for pair in named if pair[1])


def turbo():
    """Whether cores may run faster than their nominal clock: on, off, or empty where the system does not tell."""
    off = lines_of(SYSTEM_CPU + "/intel_pstate/no_turbo")
    on = lines_of(SYSTEM_CPU + "/cpufreq/boost")
    told = [line == "0" for line in off] or [line == "1" for line in on]
    return "" if not told else "on" if told[0] else "off"


def cpu_limit(root="/sys/fs/cgroup", groups="/proc/self/cgroup"):
    """How many cores' worth of time the container may use (cgroups of version 2 and 1); 0 without a limit."""
    limits = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open(groups) as file:
            path = next((line.strip()[3:] for line in file if line.startswith("0::")), "/")
        while True:  # a limit of any group above holds as well
            for line in lines_of(glob.escape(root + path.rstrip("/")) + "/cpu.max"):
                quota, period = line.split()
                limits += [int(quota) / int(period)] if quota != "max" else []
            if path in ("/", ""):
                break
            path = os.path.dirname(path)
    with contextlib.suppress(ValueError, IndexError):
        quota, period = (lines_of(root + f"/cpu*/cpu.cfs_{name}_us")[0] for name in ("quota", "period"))
        limits += [int(quota) / int(period)] if int(quota) > 0 else []
    return round(min(limits), 2) if limits else 0.0


def runtime_version(runtime):
    """The version of the installed runtime; of macOS for Core ML, which is a part of it."""
    from importlib import metadata

    if runtime == "coreml" and sys.platform != "darwin":
        raise CannotRunError(f"Core ML runs on macOS only, this is {platform.system()}", "macos")
    for name in DISTRIBUTIONS[runtime]:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        return "macOS " + platform.mac_ver()[0] if runtime == "coreml" else version
    raise CannotRunError(f"{DISTRIBUTIONS[runtime][0]} is not installed", "package")


class Core:
    """Tells when something else slows down this process's core, such as another virtual machine on its sibling thread.

    No clock shows that, neither CPU time nor stolen time: every instruction takes longer, 1.3 to 1.8 times, often for
    about a second. A short fixed computation shows it, when it is compared with its own times before.
    """

    def __init__(self):
        self.probes = collections.deque(maxlen=PROBES)  # type: collections.deque[float]
        self.quick = 0.0  # seconds of a quick probe; 0: not known yet
        self.began, self.waited = time.perf_counter(), 0.0

    def note(self, quick=0.0):
        """Takes a probe for the comparison; one for each request, so that they lie far enough apart.

        Args:
            quick: the seconds of a quick probe of an earlier process on this core; 0 if there was none.
        """
        if quick and not self.probes:
            self.probes.extend([quick] * REMEMBERED)
        self.probes.append(probe())
        if len(self.probes) >= MIN_PROBES:
            self.quick = sorted(self.probes)[int(QUICK * len(self.probes))]

    def is_slowed(self):
        """Whether it is slower now than usual."""
        return self.quick > 0 and probe() > SLOWED * self.quick

    def wait(self, run):
        """Whether the core is quick, after waiting for it; runs a model meanwhile, so that the core does not sleep.

        All waiting together takes at most a share of the time of everything else, and `MOST_WAITING` seconds more.
        """
        begin = time.perf_counter()
        others = begin - self.began - self.waited
        most = MOST_WAITING + min(0.0, WAITING_SHARE * others - self.waited)
        quick = not self.is_slowed()
        while not quick and time.perf_counter() - begin < most:
            run()
            quick = not self.is_slowed()
        self.waited += time.perf_counter() - begin
        return quick


def probe():
    """The seconds of a short fixed computation, once it is in the caches."""
    times = []
    for _ in range(2):
        total, start = 0, time.perf_counter()
        for number in PROBE:
            total += number
        times.append(time.perf_counter() - start)
    return min(times)


def sample(run, seconds, core):
    """Warms up until steady, then runs for about ``seconds``: five samples at least, thirty at most.

    Where the median is not known to 1% by then, on for at most four times as long and a hundred samples. A sample is
    the mean of so many runs as take a millisecond: reading the clocks costs more than the smallest blocks. Samples
    during which the core was slowed down are left out; where too few others remain, all are returned as ``slowed``.
    """
    core.note()
    was_quick = core.wait(run) if seconds >= WORTH_WAITING else not core.is_slowed()
    warm_up(run, seconds)
    loops = calibrate(run, min(LOOP_SECONDS, seconds / MIN_SAMPLES))
    taken, quick = [], []  # type: list[tuple[float, float]], list[tuple[float, float]]
    start, slowed_before = time.perf_counter(), core.is_slowed()
    while True:
        taken.append(timed(run, loops))
        slowed = core.is_slowed()
        if not slowed and not slowed_before:
            quick.append(taken[-1])
        elapsed, slowed_before = time.perf_counter() - start, slowed
        wanted = quick if was_quick else taken  # a core that stays slow is not waited for again
        count, is_last = len(wanted), len(taken) >= MOST_SAMPLES or elapsed >= MOST_SECONDS * seconds
        if not is_last and (count < MIN_SAMPLES or (count < MAX_SAMPLES and elapsed < seconds)):
            continue
        if len(taken) >= MIN_SAMPLES and (is_last or median_error([wall for wall, _ in wanted]) <= ERROR):
            break
    enough = len(quick) >= MIN_SAMPLES
    kept = quick if enough else taken
    wall_ms, cpu_ms = [wall for wall, _ in kept], [cpu for _, cpu in kept]
    return {"wall_ms": wall_ms, "cpu_ms": cpu_ms, "loops": loops, "slowed": not enough, "quick_s": core.quick}


def timed(run, loops):
    """Milliseconds of one run: wall time, and CPU time of this thread; the means of so many runs."""
    repeated = range(loops)
    cpu, wall = time.thread_time_ns(), time.perf_counter_ns()
    for _ in repeated:
        run()
    wall_ms = (time.perf_counter_ns() - wall) / 1e6 / loops
    return round(wall_ms, 6), round((time.thread_time_ns() - cpu) / 1e6 / loops, 6)


def calibrate(run, seconds):
    """How many runs take at least ``seconds``, a power of two; doubled until they do, as pyperf does."""
    loops = 1
    while loops < MAX_LOOPS and timed(run, loops)[0] * loops < 1e3 * seconds:
        loops *= 2
    return loops


def warm_up(run, seconds):
    """Runs until three runs take as long as the three before, within 5%; for 5 ms at least, ``seconds`` at most."""
    times = []  # type: list[float]
    begin = time.perf_counter()
    end, earliest = begin + seconds, begin + min(seconds, MIN_WARM_UP_SECONDS)
    while len(times) < 2 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
        if time.perf_counter() < earliest:
            continue
        if len(times) >= 6 and abs(statistics.median(times[-3:]) / statistics.median(times[-6:-3]) - 1) <= STEADY:
            return


def median_error(values):
    """The standard error of the median as a share of it, from the median absolute deviation (normal samples)."""
    middle = statistics.median(values)
    deviation = 1.4826 * statistics.median(abs(value - middle) for value in values)
    return 1.2533 * deviation / len(values) ** 0.5 / middle


def pin(threads, cores):
    """Keeps this process on ``cores``, or else on the last ``threads`` that it has; why that cannot be, if so."""
    if not hasattr(os, "sched_setaffinity"):
        return f"{platform.system()} does not let processes choose their cores" if cores else ""
    usable = sorted(os.sched_getaffinity(0))
    if not cores and threads > len(usable):
        return f"{threads} threads on the {len(usable)} cores that it may use wait for each other"
    try:
        os.sched_setaffinity(0, cores or usable[-threads:])
    except OSError as error:
        return f"the cores {cores} cannot be used: {error.strerror}"
    return ""


def meter_memory(open_model, path, warm_up):
    """The peak of the resident bytes of loading a model and of a few runs, beyond those of the process before.

    The process has then loaded, run and closed another, small model, so that what the runtime itself needs does not
    count. Pages of the model's file count where the runtime maps it into memory.

    Raises:
        CannotRunError: when this system does not report the peak of one process.
        RuntimeError: when the peak does not show the model.
    """
    if not os.path.exists("/proc/self/status"):
        raise CannotRunError(f"{platform.system()} does not report the peak of a process's resident memory", "meter")
    model = open_model(warm_up)
    model.run()
    del model
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc keeps freed memory, which the model would use again
        ctypes.CDLL(None).malloc_trim(0)
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the peak begins again
    except OSError as error:
        raise CannotRunError(f"the peak of resident memory cannot be reset: {error.strerror}", "meter") from error
    before = resident_bytes("VmRSS")
    model = open_model(path)
    for _ in range(METERED_RUNS):
        model.run()
    added = resident_bytes("VmHWM") - before
    if added <= 0:
        raise RuntimeError("the resident memory of the process does not show the model")
    return added


def resident_bytes(name):
    """A size of this process: VmRSS, what is resident now, or VmHWM, its peak."""
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(name + ":"))
    return 1024 * int(line.split()[1])


def meter_energy(open_model, path, warm_up, root="/sys"):
    """The millijoules that one run adds to what the idle processor takes, by the processor's own counters.

    Raises:
        CannotRunError: when there is no counter, or it cannot be read.
        RuntimeError: when the counters do not show the runs.
    """
    read_counters(root)  # fails before the model is opened
    run = open_model(path).run
    repeat(run, IDLE_SECONDS)  # warms up
    idle = [spent(root, lambda: time.sleep(IDLE_SECONDS))]
    joules, seconds, count = spent(root, lambda: repeat(run, ENERGY_SECONDS))
    idle.append(spent(root, lambda: time.sleep(IDLE_SECONDS)))
    idle_watts = sum(each[0] for each in idle) / sum(each[1] for each in idle)
    added = joules - idle_watts * seconds
    if added <= 0:
        raise RuntimeError(f"{count} runs took {joules:.3g} J in {seconds:.3g} s, no more than the idle processor")
    return 1e3 * added / count


def repeat(run, seconds):
    """Runs for ``seconds``; returns how often."""
    end, count = time.perf_counter() + seconds, 0
    while count == 0 or time.perf_counter() < end:
        run()
        count += 1
    return count


def spent(root, action):
    """The joules and the seconds that an action takes, and what it returns."""
    before, begin = read_counters(root), time.perf_counter()
    result = action()
    seconds, after = time.perf_counter() - begin, read_counters(root)
    # A counter of RAPL begins again at zero after its range.
    used = [end - start + (span if end < start else 0) for (start, span), (end, _) in zip(before, after)]  # noqa: B905
    return sum(used) / 1e6, seconds, result


def read_counters(root="/sys"):
    """The processor's counters of energy in microjoules, each with its range (0: it has none).

    They are those of RAPL (Intel, AMD), or a phone's power rails of CPU cores (Pixel: On-Device Power Monitor).

    Raises:
        CannotRunError: when there is none, or it cannot be read.
    """
    found = []
    try:
        # Only whole packages; intel-rapl-mmio counts the same ones again.
        for folder in sorted(glob.glob(root + "/class/powercap/intel-rapl:*")):
            if "".join(lines_of(glob.escape(folder) + "/name")).startswith("package"):
                found.append((read_number(folder + "/energy_uj"), read_number(folder + "/max_energy_range_uj")))
        for path in sorted(glob.glob(root + "/bus/iio/devices/iio:device*/energy_value")):
            with open(path) as file:
                rails = re.findall(r"^CH\d+\(.*?\)\[(.*?)\], *(\d+)", file.read(), re.M)
            found += [(int(number), 0) for name, number in rails if "CPU" in name]
    except OSError as error:
        raise CannotRunError(
            f"the counter of energy {error.filename} cannot be read: {error.strerror}", "meter"
        ) from error
    if not found:
        raise CannotRunError("there is no counter of energy (RAPL, or a phone's power rails)", "meter")
    return found


def read_number(path):
    """The number in a file."""
    with open(path) as file:
        return int(file.read())


METERS = {"memory": meter_memory, "energy": meter_energy}
"""How metrics are measured, by their names; `latency_tables.prediction.metrics` has the same names."""


class Agent:
    """Holds models in a folder of its own, and carries out requests."""

    def __init__(self, folder, runtime, threads, delegate):
        self.folder, self.runtime, self.threads, self.delegate = folder, runtime, threads, delegate
        self.models, self.paths = {}, {}
        self.core = Core()
        self.numbers = itertools.count()

    def answer(self, request):
        """What a request gives."""
        do, key = request["do"], request.get("key")
        if do in ("describe", "survey"):
            return describe(self.runtime) if do == "describe" else survey()
        if do == "load":
            self.paths[key] = self.put(base64.b64decode(request["model"]))
            self.models[key] = OPENERS[self.runtime](self.paths[key], self.threads, self.delegate)
            self.core.note(request.get("quick_s", 0.0))
        elif do == "unload":
            self.models.pop(key, None)
            self.remove(self.paths.pop(key, None))
        elif do == "sample":
            return sample(self.models[key].run, request["seconds"], self.core)
        elif do == "output":
            self.models[key].run()  # the output of some runtimes is what their last run has left
            return {"output": [float(value) for value in self.models[key].output().ravel()]}
        elif do == "meter":
            return {"value": self.meter(request)}
        elif do == "shares":
            return {"shares": coreml_shares(self.paths[key], self.delegate) if self.runtime == "coreml" else {}}
        else:
            raise ValueError(f"no request {do!r}")
        return {}

    def meter(self, request):
        """The value of a metric for a model."""
        path, warm_up = (self.put(base64.b64decode(request[name])) for name in ("model", "warm_up"))
        try:
            opener = OPENERS[self.runtime]
            return METERS[request["metric"]](lambda path: opener(path, self.threads, self.delegate), path, warm_up)
        finally:
            self.remove(path)
            self.remove(warm_up)

    def put(self, content):
        """Writes a model's content below the folder; returns its path."""
        path = os.path.join(self.folder, str(next(self.numbers)))
        if content.startswith(b"PK\3\4"):
            path += ".mlpackage" if self.runtime == "coreml" else ""
            zipfile.ZipFile(io.BytesIO(content)).extractall(path)
        else:
            with open(path, "wb") as file:
                file.write(content)
        return path

    def remove(self, path):
        """Removes a model's file or folder."""
        if path is not None:
            (shutil.rmtree if os.path.isdir(path) else os.remove)(path)


def end_with_stdin(folder):
    """Ends this process when the sender of requests has ended, also if a runtime hangs and `main` does not notice."""
    requests = select.poll()
    requests.register(0, 0)  # asks for no event, which leaves the hang-up; sleeps until then
    requests.poll()
    time.sleep(GRACE_SECONDS)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def main():
    """Answers until stdin ends."""
    runtime, threads, delegate, cores = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a runtime prints is no answer
    refusal = "" if cores == AS_STARTED else pin(threads, [int(core) for core in cores.split(",") if core])
    with tempfile.TemporaryDirectory(prefix="dmask-") as folder:
        agent = Agent(folder, runtime, threads, delegate)
        threading.Thread(target=end_with_stdin, args=(folder,), daemon=True).start()
        for line in sys.stdin:
            try:
                request = json.loads(line)
                # Ends this process also where a runtime hangs with Python's lock, so that `end_with_stdin` cannot.
                faulthandler.dump_traceback_later(request["limit"] + 2 * GRACE_SECONDS, exit=True)
                answer = {"error": refusal, "cause": "cores"} if refusal else agent.answer(request)
            except Exception as error:  # whatever a runtime raises, the next model must still be measured
                answer = failure(error)
            faulthandler.cancel_dump_traceback_later()
            answers.write(MARK + json.dumps(answer) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
