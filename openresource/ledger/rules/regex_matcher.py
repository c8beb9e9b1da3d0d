"""Matching of regular expressions by backtracking with an explicit stack, every step of it metered.

A pattern becomes a list of instructions. Nothing recurses but looks ahead and behind, whose nesting the parser bounds.
"""

from __future__ import annotations

from typing import Final

from openresource.ledger.rules.meter import Meter
from openresource.ledger.rules.regex_parser import (
    UNBOUNDED,
    AnyCharacter,
    Back,
    Choice,
    Edge,
    Group,
    Look,
    Many,
    Pattern,
    RegexNode,
    Repeat,
    Sequence,
    Single,
    in_named_class,
)

_SINGLE: Final = 0
_MANY: Final = 1
_ANY: Final = 2
_SPLIT: Final = 3
_JUMP: Final = 4
_SAVE: Final = 5
_EDGE: Final = 6
_LOOK: Final = 7
_BACK: Final = 8
_ENTER: Final = 9
_LOOP: Final = 10
_MATCH: Final = 11
_STEP: Final = 12
_ROUND: Final = 13
_RUN: Final = 14

_NEWLINES: Final = frozenset((10, 13, 0x2028, 0x2029))


class _Instruction:
    __slots__ = ("body", "code", "first", "flag", "repeat", "second", "slot")

    def __init__(self, code: int, first: int = 0, second: int = 0) -> None:
        self.code: int = code
        self.first: int = first
        self.second: int = second
        self.slot: int = 0
        self.flag: bool = False
        self.body: Many | None = None
        self.repeat: Repeat | None = None


class Program:
    """A pattern, ready to run."""

    __slots__ = (
        "group_count",
        "group_names",
        "ignores_case",
        "instructions",
        "is_dot_all",
        "is_multiline",
        "is_unicode",
        "slot_count",
    )

    def __init__(self, pattern: Pattern) -> None:
        self.group_count: int = pattern.group_count
        self.group_names: dict[str, int] = pattern.group_names
        self.ignores_case: bool = "i" in pattern.flags
        self.is_multiline: bool = "m" in pattern.flags
        self.is_dot_all: bool = "s" in pattern.flags
        self.is_unicode: bool = "u" in pattern.flags
        self.instructions: list[_Instruction] = []
        # Slots 2n and 2n+1 hold where group n begins and ends; behind them lie the loops' counters and starts.
        self.slot_count: int = 2 * (pattern.group_count + 1)
        self._emit(pattern.body, True)
        self._add(_MATCH)

    def match(self, text: str, at: int, meter: Meter) -> list[int] | None:
        """Where the groups begin and end (-1 for none) if the pattern fits at a position."""
        return _Run(self, text, meter).groups(at)

    def search(self, text: str, start: int, meter: Meter) -> list[int] | None:
        """The first match at or behind a position."""
        run = _Run(self, text, meter)
        for at in range(start, len(text) + 1):
            found = run.groups(at)
            if found is not None:
                return found
        return None

    def _add(self, code: int, first: int = 0, second: int = 0) -> _Instruction:
        instruction = _Instruction(code, first, second)
        self.instructions.append(instruction)
        return instruction

    def _emit(self, node: RegexNode, is_forward: bool) -> None:
        if isinstance(node, Single):
            self._add(_SINGLE, self.canonical(node.point)).flag = is_forward
        elif isinstance(node, Many):
            many = self._add(_MANY)
            many.body = node
            many.flag = is_forward
        elif isinstance(node, AnyCharacter):
            self._add(_ANY).flag = is_forward
        elif isinstance(node, Sequence):
            for part in node.parts if is_forward else reversed(node.parts):
                self._emit(part, is_forward)
        elif isinstance(node, Choice):
            self._emit_choice(node, is_forward)
        elif isinstance(node, Group):
            self._add(_SAVE, 2 * node.number + (0 if is_forward else 1))
            self._emit(node.body, is_forward)
            self._add(_SAVE, 2 * node.number + (1 if is_forward else 0))
        elif isinstance(node, Repeat):
            self._emit_repeat(node, is_forward)
        elif isinstance(node, Edge):
            self._add(_EDGE, ord(node.kind))
        elif isinstance(node, Look):
            look = self._add(_LOOK)
            look.flag = node.is_negated
            self._emit(node.body, node.is_ahead)
            self._add(_MATCH)
            look.first = len(self.instructions)
        elif isinstance(node, Back):
            self._add(_BACK, node.number).flag = is_forward

    def _emit_choice(self, node: Choice, is_forward: bool) -> None:
        jumps: list[_Instruction] = []
        for option in node.options[:-1]:
            split = self._add(_SPLIT)
            split.first = len(self.instructions)
            self._emit(option, is_forward)
            jumps.append(self._add(_JUMP))
            split.second = len(self.instructions)
        self._emit(node.options[-1], is_forward)
        for jump in jumps:
            jump.first = len(self.instructions)

    def _emit_run(self, node: Repeat, is_forward: bool) -> bool:
        """One instruction for a greedy repeat of single characters; false if the repeat is no such thing."""
        body = node.body
        if isinstance(body, Sequence) and len(body.parts) == 1:
            body = body.parts[0]
        if node.is_lazy or not isinstance(body, Single | Many | AnyCharacter):
            return False
        self._emit(body, is_forward)
        run = self.instructions[-1]
        run.second = run.code
        run.code = _RUN
        run.repeat = node
        return True

    def _emit_repeat(self, node: Repeat, is_forward: bool) -> None:
        """ENTER clears the counter; LOOP goes on or out; ROUND opens a round of the body; STEP counts it."""
        if self._emit_run(node, is_forward):
            return
        slot = self.slot_count
        self.slot_count += 2
        self._add(_ENTER).slot = slot
        loop = self._add(_LOOP)
        loop.slot = slot
        loop.repeat = node
        loop.first = len(self.instructions)
        opening = self._add(_ROUND)
        opening.slot = slot
        opening.repeat = node
        self._emit(node.body, is_forward)
        step = self._add(_STEP, loop.first - 1)
        step.slot = slot
        step.repeat = node
        loop.second = len(self.instructions)

    def canonical(self, point: int) -> int:
        """A character as it is compared: itself, or without regard to case."""
        if not self.ignores_case:
            return point
        if point < 128:
            return point - 32 if 97 <= point <= 122 else point
        if self.is_unicode:
            folded = chr(point).casefold()
            return ord(folded.upper()) if len(folded) == 1 and len(folded.upper()) == 1 else point
        upper = chr(point).upper()
        if len(upper) != 1 or ord(upper) < 128 or ord(upper) > 0xFFFF:
            return point
        return ord(upper)

    def is_word(self, point: int) -> bool:
        """Whether a character counts as a letter of a word; with the flags i and u, two more look like s and k."""
        if (point == 0x17F or point == 0x212A) and self.is_unicode and self.ignores_case:
            return True
        return in_named_class("w", point)

    def _is_listed(self, many: Many, point: int) -> bool:
        for low, high in many.ranges:
            if low <= point <= high:
                return True
        for name in many.names:
            if name == "w" or name == "W":
                if self.is_word(point) == (name == "w"):
                    return True
            elif in_named_class(name, point):
                return True
        return False

    def contains(self, many: Many, point: int) -> bool:
        """Whether a class has a character."""
        is_inside = self._is_listed(many, point)
        if not is_inside and self.ignores_case:
            target = self.canonical(point)
            character = chr(point)
            for variant in (
                character.lower(),
                character.upper(),
                character.upper().lower(),
                character.swapcase(),
            ):
                if (
                    len(variant) == 1
                    and self.canonical(ord(variant)) == target
                    and self._is_listed(many, ord(variant))
                ):
                    is_inside = True
                    break
        return is_inside != many.is_negated


def _is_listed(many: Many, point: int) -> bool:
    for low, high in many.ranges:
        if low <= point <= high:
            return True
    return any(in_named_class(name, point) for name in many.names)


class _Run:
    """One attempt to match; `slots` are captures, counters and loop starts, `undo` what they were before."""

    __slots__ = ("meter", "program", "slots", "text", "undo_slots", "undo_values")

    def __init__(self, program: Program, text: str, meter: Meter) -> None:
        self.program: Program = program
        self.text: str = text
        self.meter: Meter = meter
        self.slots: list[int] = [-1] * program.slot_count
        self.undo_slots: list[int] = []
        self.undo_values: list[int] = []

    def groups(self, at: int) -> list[int] | None:
        """Where the groups begin and end if the pattern fits at a position."""
        self._undo(0)
        end = self.run(0, at)
        if end < 0:
            return None
        found = self.slots[: 2 * (self.program.group_count + 1)]
        found[0] = at
        found[1] = end
        return found

    def _set(self, slot: int, value: int) -> None:
        self.undo_slots.append(slot)
        self.undo_values.append(self.slots[slot])
        self.slots[slot] = value

    def _undo(self, mark: int) -> None:
        while len(self.undo_slots) > mark:
            slot = self.undo_slots.pop()
            self.slots[slot] = self.undo_values.pop()

    def run(self, start: int, begin: int) -> int:
        """Runs from an instruction at a position; the position of the end, or -1."""
        instructions = self.program.instructions
        # Where to go on when the way taken fails: instruction, position, length of the undo list, and the last
        # position to try if there are several, one behind the other.
        choices: list[tuple[int, int, int, int]] = []
        counter = start
        at = begin
        while True:
            self.meter.spend(1)
            instruction = instructions[counter]
            code = instruction.code
            fits = True
            counter += 1
            if code <= _ANY:
                at = self._character(instruction, code, at)
                fits = at >= 0
            elif code == _RUN:
                at = self._take_run(instruction, counter, at, choices)
                fits = at >= 0
            elif code == _SPLIT:
                choices.append((instruction.second, at, len(self.undo_slots), -1))
                counter = instruction.first
            elif code == _JUMP:
                counter = instruction.first
            elif code == _SAVE:
                self._set(instruction.first, at)
            elif code == _EDGE:
                fits = self._is_edge(instruction.first, at)
            elif code == _ENTER:
                self._set(instruction.slot, 0)
                self._set(instruction.slot + 1, -1)
            elif code == _LOOP:
                counter = self._loop(instruction, at, choices)
            elif code == _ROUND:
                self._open_round(instruction, at)
            elif code == _STEP:
                # A round that took nothing, once the least number is reached, is no round.
                repeat = instruction.repeat
                assert repeat is not None
                count = self.slots[instruction.slot]
                if at == self.slots[instruction.slot + 1] and count >= repeat.least:
                    fits = False
                else:
                    self._set(instruction.slot, count + 1)
                    counter = instruction.first
            elif code == _LOOK:
                mark = len(self.undo_slots)
                is_found = self.run(counter, at) >= 0
                fits = is_found != instruction.flag
                if instruction.flag or not is_found:
                    self._undo(mark)
                counter = instruction.first
            elif code == _BACK:
                at = self._again(instruction.first, instruction.flag, at)
                fits = at >= 0
            else:
                return at
            if not fits:
                if not choices:
                    return -1
                counter, at, mark, last = choices.pop()
                if last >= 0 and at != last:
                    choices.append((counter, at - 1 if at > last else at + 1, mark, last))
                self._undo(mark)

    def _loop(self, instruction: _Instruction, at: int, choices: list[tuple[int, int, int, int]]) -> int:
        """Where a loop goes on: into its body, or out; the other way is kept as a choice."""
        repeat = instruction.repeat
        assert repeat is not None
        count = self.slots[instruction.slot]
        if count < repeat.least:
            return instruction.first
        if repeat.most != UNBOUNDED and count >= repeat.most:
            return instruction.second
        if repeat.is_lazy:
            choices.append((instruction.first, at, len(self.undo_slots), -1))
            return instruction.second
        choices.append((instruction.second, at, len(self.undo_slots), -1))
        return instruction.first

    def _open_round(self, instruction: _Instruction, at: int) -> None:
        repeat = instruction.repeat
        assert repeat is not None
        self._set(instruction.slot + 1, at)
        for group in range(repeat.group_start, repeat.group_end):
            if self.slots[2 * group] != -1 or self.slots[2 * group + 1] != -1:
                self._set(2 * group, -1)
                self._set(2 * group + 1, -1)

    def _take_run(
        self, instruction: _Instruction, counter: int, at: int, choices: list[tuple[int, int, int, int]]
    ) -> int:
        """The position behind as many characters as fit, or -1; fewer of them are kept as choices."""
        repeat = instruction.repeat
        assert repeat is not None
        step = 1 if instruction.flag else -1
        position = at
        count = 0
        while repeat.most == UNBOUNDED or count < repeat.most:
            following = self._character(instruction, instruction.second, position)
            if following < 0:
                break
            position = following
            count += 1
            if count % 64 == 0:
                self.meter.spend(32)
        if count < repeat.least:
            return -1
        if count > repeat.least:
            choices.append((counter, position - step, len(self.undo_slots), at + step * repeat.least))
        return position

    def _character(self, instruction: _Instruction, code: int, at: int) -> int:
        """The position behind (or before, going backwards) one character that fits, or -1."""
        is_forward = instruction.flag
        where = at if is_forward else at - 1
        if where < 0 or where >= len(self.text):
            return -1
        point = ord(self.text[where])
        if code == _SINGLE:
            fits = point == instruction.first or self.program.canonical(point) == instruction.first
        elif code == _ANY:
            fits = self.program.is_dot_all or point not in _NEWLINES
        else:
            many = instruction.body
            assert many is not None
            fits = self.program.contains(many, point)
        if not fits:
            return -1
        return at + 1 if is_forward else at - 1

    def _is_edge(self, kind: int, at: int) -> bool:
        text = self.text
        if kind == 0x5E:
            return at == 0 or (self.program.is_multiline and ord(text[at - 1]) in _NEWLINES)
        if kind == 0x24:
            return at == len(text) or (self.program.is_multiline and ord(text[at]) in _NEWLINES)
        before = at > 0 and self.program.is_word(ord(text[at - 1]))
        after = at < len(text) and self.program.is_word(ord(text[at]))
        return (before != after) == (kind == 0x62)

    def _again(self, group: int, is_forward: bool, at: int) -> int:
        begin = self.slots[2 * group]
        end = self.slots[2 * group + 1]
        if begin < 0 or end < 0:
            return at
        length = end - begin
        self.meter.spend(length)
        where = at if is_forward else at - length
        if where < 0 or where + length > len(self.text):
            return -1
        canonical = self.program.canonical
        for offset in range(length):
            if canonical(ord(self.text[begin + offset])) != canonical(ord(self.text[where + offset])):
                return -1
        return where + length if is_forward else where
