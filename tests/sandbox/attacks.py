"""What a hostile program tries. Each attack is the body of a Python method; what it returns is judged by a test."""

from __future__ import annotations

PREAMBLE = """
import ctypes, errno, json, mmap, os, platform, resource, signal, socket, struct, subprocess, sys, tempfile, threading, time
libc = ctypes.CDLL(None, use_errno=True)
ARM = platform.machine() == "aarch64"

def syscall(number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    return 0 if result >= 0 else ctypes.get_errno()

def attempt(function, *arguments):
    try:
        function(*arguments)
        return "done"
    except OSError as problem:
        return errno.errorcode.get(problem.errno, str(problem.errno))

def forked(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return pid

class Program:
    def ping(self) -> str:
        return "pong"
    def attack(self, argument: object = None):
"""


def program(body: str) -> dict[str, str]:
    """The files of a program whose method `attack` has this body."""
    lines = [f"        {line}" for line in body.strip("\n").split("\n")]
    return {"program.py": PREAMBLE + "\n".join(lines) + "\n"}


COUNT_FORKS = """
count = 0
while count < 500:
    try:
        pid = os.fork()
    except OSError:
        break
    if pid == 0:
        time.sleep(600)
        os._exit(0)
    count += 1
return count
"""
FORK_BOMB = """
while True:
    try:
        os.fork()
    except OSError:
        pass
"""
THREADS = """
count = 0
try:
    while count < 500:
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
        count += 1
except RuntimeError:
    pass
return count
"""
ALLOCATE_ALONE = """
held = []
while True:
    held.append(bytearray(1 << 20))
"""
ALLOCATE_TOGETHER = """
def hold():
    held = bytearray(120 << 20)
    for offset in range(0, len(held), 4096):
        held[offset] = 1
    time.sleep(600)
for _ in range(8):
    forked(hold)
time.sleep(600)
"""
UNCOUNTED_MEMORY = """
return {
    "memfd_create": syscall(279 if ARM else 319, b"x", 0),
    "memfd_secret": syscall(447, 0),
    "shmget": syscall(194 if ARM else 29, 0, 1 << 20, 0o1600),
    "semget": syscall(190 if ARM else 64, 0, 250, 0o1600),
    "msgget": syscall(186 if ARM else 68, 0, 0o1600),
    "mq_open": syscall(180 if ARM else 240, b"x", 0o102, 0o600, 0),
}
"""
SOCKET_BUFFERS = """
def fill():
    pairs = []
    try:
        while True:
            pair = socket.socketpair()
            for end in pair:
                end.setblocking(False)
                try:
                    while True:
                        end.send(bytes(65536))
                except OSError:
                    pass
            pairs.append(pair)
    except OSError:
        time.sleep(600)
for _ in range(20):
    forked(fill)
time.sleep(600)
"""
FILL_DISK = """
written = 0
folder = os.environ["TMPDIR"]
try:
    for number in range(10_000):
        with open(f"{folder}/file{number}", "wb") as file:
            for _ in range(1 << 10):
                written += file.write(bytes(1 << 16))
                file.flush()
except OSError as problem:
    return {"written": written, "error": errno.errorcode[problem.errno]}
"""
FILL_SHARED_MEMORY = FILL_DISK.replace('os.environ["TMPDIR"]', '"/dev/shm"')
MANY_FILES = """
folder = os.environ["TMPDIR"]
made = 0
try:
    for made in range(200_000):
        os.close(os.open(f"{folder}/{made}", os.O_CREAT | os.O_WRONLY))
except OSError as problem:
    return {"made": made, "error": errno.errorcode[problem.errno]}
return {"made": made}
"""
NAMELESS_FILES = """
folder = os.environ["TMPDIR"]
held, written = [], 0
try:
    for _ in range(200):
        held.append(os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600))
        for _ in range(64):
            written += os.write(held[-1], bytes(1 << 16))
        time.sleep(0.02)
except OSError as problem:
    return {"written": written, "error": errno.errorcode[problem.errno]}
"""
DEEP_FOLDERS = """
os.chdir(os.environ["TMPDIR"])
for depth in range(3_000):
    os.mkdir("d", 0o700)
    os.chdir("d")
os.chmod("..", 0)
return depth
"""
WRITE_OUTSIDE = """
places = ["/", "/usr", "/usr/lib", "/etc", "/bin", "/dev", "/proc", "/proc/self", "/var/tmp", "/run", "/root", "/home", "/sys",
          "/guest", "/python", "/sock", "/opt", "/mnt", argument, os.path.dirname(os.path.abspath(__file__)), sys.prefix]
written = [place for place in places if attempt(open, f"{place}/planted", "w") == "done"]
files = ["/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/kernel/hostname", "/etc/passwd", os.path.abspath(__file__)]
written += [name for name in files if attempt(open, name, "r+") == "done"]
return written
"""
READ_SECRETS = """
found = []
for name in ["/etc/shadow", "/etc/sudoers", "/root/.bashrc", "/root", "/home", "/proc/kcore", "/dev/mem", "/dev/kmsg",
             "/var/run/docker.sock", "/sys/kernel", "/var/lib", "/etc/ssh", argument["folder"]]:
    try:
        content = os.listdir(name) if os.path.isdir(name) else open(name, "rb").read(10).hex()
        found += [(name, content)] if content else []
    except OSError:
        pass
texts = [repr(dict(os.environ))]
try:
    numbers = [name for name in os.listdir("/proc") if name.isdigit()]
except OSError:
    numbers = [str(number) for number in range(1, 3000)]
for number in numbers:
    for name in ("environ", "cmdline"):
        try:
            texts.append(open(f"/proc/{number}/{name}", errors="replace").read())
        except OSError:
            pass
return {"found": found, "leaks": [text[:300] for text in texts if argument["secret"] in text or argument["folder"] in text]}
"""
FOLLOW_LINK = """
app = os.path.dirname(os.path.abspath(__file__))
return {name: attempt(open, f"{app}/{name}", "rb") for name in ("shadow", "proc", "up")}
"""
NETWORK = """
def tcp(family, address):
    connection = socket.socket(family, socket.SOCK_STREAM)
    connection.settimeout(2)
    try:
        connection.connect(address)
    finally:
        connection.close()
def udp():
    connection = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    connection.sendto(b"x", ("192.0.2.1", 53))
def kind(family, kind, protocol=0):
    socket.socket(family, kind, protocol).close()
results = {}
for name, function, arguments in [
    ("loopback", tcp, (socket.AF_INET, ("127.0.0.1", argument["port"]))),
    ("loopback6", tcp, (socket.AF_INET6, ("::1", argument["port"]))),
    ("metadata", tcp, (socket.AF_INET, ("169.254.169.254", 80))),
    ("outside", tcp, (socket.AF_INET, ("192.0.2.1", 80))),
    ("udp", udp, ()),
    ("abstract", tcp, (socket.AF_UNIX, "\\0" + argument["abstract"])),
    ("file", tcp, (socket.AF_UNIX, argument["file"])),
    ("packet", kind, (socket.AF_PACKET, socket.SOCK_RAW)),
    ("raw", kind, (socket.AF_INET, socket.SOCK_RAW, 1)),
    ("vsock", tcp, (40, (2, 22))),
]:
    try:
        results[name] = attempt(function, *arguments)
    except (TimeoutError, ValueError, TypeError) as problem:
        results[name] = type(problem).__name__
return results
"""
FORBIDDEN_CALLS = """
numbers = {
    "unshare": (97, 272), "setns": (268, 308), "mount": (40, 165), "umount2": (39, 166), "pivot_root": (41, 155),
    "chroot": (51, 161), "ptrace": (117, 101), "process_vm_readv": (270, 310), "bpf": (280, 321),
    "io_uring_setup": (425, 425), "keyctl": (219, 250), "add_key": (217, 248), "pidfd_getfd": (438, 438),
    "userfaultfd": (282, 323), "perf_event_open": (241, 298), "kexec_load": (104, 246), "init_module": (105, 175),
    "reboot": (142, 169), "settimeofday": (170, 164), "sethostname": (161, 170), "swapon": (224, 167),
    "open_by_handle_at": (265, 304), "move_mount": (429, 429), "fsopen": (430, 430), "open_tree": (428, 428),
    "mount_setattr": (442, 442), "clone3": (435, 435), "acct": (89, 163), "syslog": (116, 103),
    "fanotify_init": (262, 300), "kcmp": (272, 312), "a call that is younger than the list": (469, 469),
}
return {name: errno.errorcode.get(syscall(pair[0 if ARM else 1], 0, 0, 0, 0, 0), "done") for name, pair in numbers.items()}
"""
NEW_NAMESPACES = """
results = {}
for name, flag in {"user": 0x10000000, "mount": 0x20000, "pid": 0x20000000, "net": 0x40000000, "ipc": 0x8000000}.items():
    results[name] = errno.errorcode.get(syscall(220 if ARM else 56, flag | signal.SIGCHLD, 0, 0, 0, 0), "done")
results["personality"] = errno.errorcode.get(syscall(92 if ARM else 135, 0x0040000), "done")
results["tiocsti"] = errno.errorcode.get(syscall(29 if ARM else 16, 0, 0x5412, ctypes.c_char_p(b"x")), "done")
return results
"""
OTHER_NUMBERINGS = """
x32 = syscall(0x40000000 | 39)
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
# mov eax, 20; int 0x80; ret: getpid by the numbering of 32-bit programs, which the filter was not written for
code.write(b"\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3")
address = ctypes.addressof(ctypes.c_char.from_buffer(code))
def call():
    ctypes.CFUNCTYPE(ctypes.c_int)(address)()
status = os.waitpid(forked(call), 0)[1]
return {"x32": errno.errorcode.get(x32, "done"), "killed_by": os.WTERMSIG(status) if os.WIFSIGNALED(status) else None}
"""
PRIVILEGES = """
PR_GET_SECCOMP, PR_GET_NO_NEW_PRIVS, PR_CAPBSET_READ = 21, 39, 23
class Header(ctypes.Structure): _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]
sets = (ctypes.c_uint32 * 6)()
libc.capget(ctypes.byref(Header(0x20080522, 0)), sets)
su = [name for name in ("/usr/bin/su", "/bin/su", "/usr/bin/mount") if os.path.exists(name)]
return {
    "no_new_privs": libc.prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0),
    "seccomp": libc.prctl(PR_GET_SECCOMP, 0, 0, 0, 0),
    "capabilities": list(sets),
    "uid": [os.getuid(), os.geteuid()],
    "groups": os.getgroups(),
    "setuid": attempt(os.setuid, 0),
    "setgroups": attempt(os.setgroups, [0]),
    "limits": [attempt(raise_limit, name) for name in ("RLIMIT_NPROC", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_CORE")],
}
"""
RAISE_LIMIT = """
def raise_limit(name):
    limit = getattr(resource, name)
    hard = resource.getrlimit(limit)[1]
    try:
        resource.setrlimit(limit, (hard + 1, hard + 1))
    except ValueError:
        raise OSError(errno.EPERM, "refused")
"""
NEIGHBOURS = """
own = {os.getpid(), os.getpgid(0), 1 if argument["level"] == "bubblewrap" else 0}
reached = []
for pid in [argument["worker"], os.getppid(), *range(2, 70_000)]:
    if pid in own:
        continue
    if attempt(os.kill, pid, signal.SIGKILL) == "done":
        reached.append(("kill", pid))
for pid in (argument["worker"], os.getppid()):
    if pid in own:
        continue
    for name, function, arguments in [
        ("prlimit", resource.prlimit, (pid, resource.RLIMIT_NOFILE, (3, 3))),
        ("priority", os.setpriority, (os.PRIO_PROCESS, pid, 19)),
        ("affinity", os.sched_setaffinity, (pid, {0})),
        ("memory", open, (f"/proc/{pid}/mem", "r+b")),
        ("descriptors", os.listdir, (f"/proc/{pid}/fd",)),
    ]:
        if attempt(function, *arguments) == "done":
            reached.append((name, pid))
if argument["level"] == "confined" and attempt(os.setpriority, os.PRIO_USER, 0, 19) == "done" and argument["shared"]:
    reached.append(("all of this user", 0))
return reached
"""
DESCRIPTORS = """
count = 0
held = []
try:
    while count < 5_000:
        held.append(os.open("/dev/null", os.O_RDONLY))
        count += 1
except OSError as problem:
    return {"count": count, "error": errno.errorcode[problem.errno]}
"""
INHERITED = """
found = []
for number in range(3, 250):
    try:
        mode = os.fstat(number).st_mode
    except OSError:
        continue
    found.append("socket" if (mode & 0o170000) == 0o140000 else oct(mode))
return found
"""
DAEMON = """
def hide():
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    if os.fork():
        os._exit(0)
    os.setsid()
    libc.prctl(36, 1, 0, 0, 0)
    if os.fork() == 0:
        os.closerange(0, 250)
    time.sleep(600)
forked(hide)
time.sleep(0.3)
return "hidden"
"""
MINE = """
def spin():
    while True:
        pass
threading.Thread(target=spin, daemon=True).start()
return "thanks"
"""
GROW_LATER = """
def grow():
    time.sleep(0.3)
    children = [forked(hold) for _ in range(6)]
def hold():
    held = bytearray(100 << 20)
    for offset in range(0, len(held), 4096):
        held[offset] = 1
    time.sleep(600)
threading.Thread(target=grow, daemon=True).start()
return "thanks"
"""
OWN_SOCKET = """
for number in range(3, 30):
    try:
        connection = socket.socket(fileno=number)
    except OSError:
        continue
    connection.sendall(argument.encode("latin-1"))
    connection.detach()
time.sleep(600)
"""
BROKER = """
place = os.environ["OPENRESOURCE_BROKER"]
if place.startswith("fd:"):
    lines = [socket.socket(fileno=int(place[3:]))]
else:
    lines = []
    for _ in range(100):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(place)
        lines.append(connection)
sent = 0
try:
    for line in lines:
        line.settimeout(5)
        for _ in range(64):
            sent += line.send(b"x" * 65536)
except OSError:
    pass
return sent
"""
HIDE = """
PR_SET_DUMPABLE = 4
return libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
"""

LISTEN = """
place = os.environ["TMPDIR"] + "/door"
listener = socket.socket(socket.AF_UNIX)
listener.bind(place)
listener.listen()
other = socket.socket(socket.AF_UNIX)
return attempt(other.connect, place)
"""
