"""Java: Maven where there is a pom.xml, Gradle where this machine has one, else javac over all sources."""

from __future__ import annotations

from openresource.builds.recipes import (
    DEPENDENCIES,
    HOME,
    OUT,
    WORK,
    CannotBuild,
    Layer,
    Plan,
    Source,
    Step,
    command_steps,
)  # fmt: skip
from openresource.builds.registries import find_registry
from openresource.builds.toolchains import Toolchain, ToolchainMissing, find_toolchain, missing

CLASSES = "classes"
LIBRARIES = "lib"
GRADLE_FILES = ("build.gradle", "build.gradle.kts")
PROXY = "-Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=3128 -Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort=3128"
# A short run gains nothing from the slower compiler and the larger collectors.
QUICK = "-Xmx768m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto"
PLACEHOLDER = b"final class OpenResourcePlaceholder { private OpenResourcePlaceholder() { } }\n"


class JavaRecipe:
    """The program runs with the JDK of this machine, with a heap that fits its memory."""

    version = 1

    def suits(self, source: Source) -> bool:
        """A command that is `java`, and something to compile."""
        command = source.manifest.run.command
        has_sources = source.has("pom.xml") or any(source.has(name) for name in GRADLE_FILES)
        return bool(command) and command[0] == "java" and (has_sources or bool(source.ending(".java")))

    def plan(self, source: Source) -> Plan:
        """The steps of whatever tool the folder is made for."""
        java = find_toolchain("java")
        given = command_steps(source)
        if source.has("pom.xml"):
            return self._maven(source, java, given)
        if any(source.has(name) for name in GRADLE_FILES):
            return self._gradle(source, java, given)
        return Plan(
            "java",
            self.version,
            toolchains=(java,),
            steps=given or (Step(self._compile(source)),),
            runs_with=(java,),
            environment=_heap(source),
        )

    def _gradle(self, source: Source, java: Toolchain, given: tuple[Step, ...]) -> Plan:
        try:
            gradle = find_toolchain("gradle")
        except ToolchainMissing as refusal:
            # A wrapper would fetch a program from an address that is no registry.
            reason = "Gradle's wrapper is not run here, as it fetches Gradle from outside the registries"
            raise missing("gradle", reason) from refusal
        variables = (("JAVA_TOOL_OPTIONS", PROXY), ("GRADLE_USER_HOME", f"{HOME}/gradle"))
        steps = given or (Step(("gradle", "--no-daemon", "-q", "build", "-x", "test")),)
        return Plan(
            "java",
            self.version,
            toolchains=(java, gradle),
            registries=("java",),
            steps=tuple(Step(step.words, step.folder, variables) for step in steps),
            steps_have_network=True,
            runs_with=(java,),
            environment=_heap(source),
        )

    def _compile(self, source: Source) -> tuple[str, ...]:
        sources = [name for name in source.ending(".java") if not name.startswith(("target/", "src/test/"))]
        if not sources:
            raise CannotBuild(language="java", reason="there is no .java file")
        path = f"{WORK}/{LIBRARIES}/*"
        return ("javac", "-encoding", "UTF-8", "-nowarn", "-d", f"{WORK}/{CLASSES}", "-cp", path, *sources)

    def _maven(self, source: Source, java: Toolchain, given: tuple[Step, ...]) -> Plan:
        maven = find_toolchain("maven")
        words = ("mvn", "-B", "-ntp", "-Dmaven.test.skip=true", "-Dstyle.color=never")
        goals = ("package", "dependency:copy-dependencies", "-DincludeScope=runtime",
                 "-DoutputDirectory=target/dependency")  # fmt: skip
        # Java takes its home from the list of users, not from the environment.
        variables = (("MAVEN_OPTS", f"{PROXY} -Duser.home={HOME} {QUICK} -Dmaven.artifact.threads=12"),)
        poms = {name: source.read(name) for name in source.names if name.rpartition("/")[2] == "pom.xml"}
        settle = Step(("/bin/sh", "-ec", f"mkdir -p {HOME}/.m2 && cp settings.xml {HOME}/.m2/settings.xml"))
        layer = Layer(
            {**poms, "settings.xml": _settings(), "src/main/java/OpenResourcePlaceholder.java": PLACEHOLDER},
            (
                settle,
                # Plug-ins that look for the program's own classes fail on a placeholder, after they were fetched.
                Step((*words, "--fail-never", *goals), environment=variables),
                Step(("cp", "-r", f"{HOME}/.m2", f"{OUT}/m2")),
            ),
        )
        build = given or (Step((*words, *goals)),)
        return Plan(
            "java",
            self.version,
            toolchains=(java, maven),
            registries=("java",),
            dependencies=layer,
            steps=(
                Step(("cp", "-r", f"{DEPENDENCIES}/m2", f"{HOME}/.m2")),
                *[Step(step.words, step.folder, variables) for step in build],
            ),
            # What a placeholder did not ask for is fetched now.
            steps_have_network=True,
            dropped=("target/maven-status", "target/maven-archiver", "target/generated-sources"),
            runs_with=(java,),
            environment=_heap(source),
        )


def _settings() -> bytes:
    """Maven's settings: the proxy, and this machine's mirror where it has one."""
    registry = find_registry("java")
    mirror = ""
    if registry.private_hosts:
        mirror = (
            "<mirrors><mirror><id>configured</id><mirrorOf>*</mirrorOf>"
            f"<url>{registry.addresses[0].replace('&', '&amp;').replace('<', '&lt;')}</url></mirror></mirrors>"
        )
    proxies = "".join(
        f"<proxy><id>{protocol}</id><active>true</active><protocol>{protocol}</protocol><host>127.0.0.1</host>"
        "<port>3128</port></proxy>"
        for protocol in ("http", "https")
    )
    return f"<settings><proxies>{proxies}</proxies>{mirror}</settings>\n".encode()


def _heap(source: Source) -> tuple[tuple[str, str], ...]:
    """The machine's own memory says nothing here: without this Java would take a quarter of it."""
    megabytes = max(16, source.manifest.resources.memory_bytes * 6 // 10 >> 20)
    return (("JDK_JAVA_OPTIONS", f"-Xmx{megabytes}m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto"),)
