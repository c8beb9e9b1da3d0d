"""Content by its name: folders become blocks for a node, and blocks from a node become folders, each one verified."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from openresource.primitives.cids import (
    ContentTooLarge,
    decode_node,
    file_blocks,
    folder_blocks,
    parse_cid,
    read_file,
    read_folder,
    verify_block,
)
from openresource.primitives.errors import Refusal

FOLDER_BYTES_MAX = 512 * 1024 * 1024
FOLDER_FILES_MAX = 10_000
BLOCKS_PER_FOLDER_MAX = 100_000
TRANSFERS_AT_ONCE = 8

PutBlock = Callable[[str, bytes], Awaitable[None]]
GetBlock = Callable[[str], Awaitable[bytes]]


class FolderNotUsable(Refusal):
    template = "The folder {folder} cannot be used: {reason}."


class FolderNotEmpty(Refusal):
    template = "The folder {folder} is not empty, and files from outside go into empty folders only."
    way_out = "Name a folder that does not exist yet."


def verify(cid: str, data: bytes) -> None:
    """Refuse bytes that do not have the name."""
    verify_block(parse_cid(cid), data)


def files_of(folder: Path) -> dict[str, bytes]:
    """The files of a folder by relative path, within bounds; links are refused, not followed."""
    files: dict[str, bytes] = {}
    bytes_left = FOLDER_BYTES_MAX
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        name = path.relative_to(folder).as_posix()
        if stat.S_ISDIR(mode):
            continue
        if not stat.S_ISREG(mode):
            raise FolderNotUsable(folder=folder, reason=f"{name} is neither a file nor a folder")
        if len(files) >= FOLDER_FILES_MAX:
            raise FolderNotUsable(folder=folder, reason=f"it has more than {FOLDER_FILES_MAX} files")
        files[name] = path.read_bytes()
        bytes_left -= len(files[name])
        if bytes_left < 0:
            raise FolderNotUsable(folder=folder, reason=f"it has more than {FOLDER_BYTES_MAX} bytes")
    return files


async def put_files(files: Mapping[str, bytes], put_block: PutBlock) -> str:
    """Hand every block of a folder to `put_block`, the folder's own last; returns its CID."""
    blocks: dict[str, bytes] = {}
    root = folder_blocks(files, blocks.__setitem__).cid.text
    await _put_all(root, blocks, put_block)
    return root


async def _put_all(root: str, blocks: dict[str, bytes], put_block: PutBlock) -> None:
    top = blocks.pop(root)
    gate = asyncio.Semaphore(TRANSFERS_AT_ONCE)

    async def put_one(cid: str, data: bytes) -> None:
        async with gate:
            await put_block(cid, data)

    async with asyncio.TaskGroup() as group:
        for cid, data in blocks.items():
            group.create_task(put_one(cid, data))
    # Who finds the top finds everything below it.
    await put_block(root, top)


def cid_of_bytes(data: bytes) -> str:
    """The CID under which the bytes of one file will lie."""
    return file_blocks([data], lambda cid, block: None).cid.text


async def put_bytes(data: bytes, put_block: PutBlock) -> str:
    """Hand the blocks of one file to `put_block`, the top one last; returns its CID."""
    blocks: dict[str, bytes] = {}
    root = file_blocks([data], blocks.__setitem__).cid.text
    await _put_all(root, blocks, put_block)
    return root


async def get_bytes(cid: str, get_block: GetBlock, *, bytes_max: int) -> bytes:
    """The bytes of one file, within bounds; `get_block` is believed nothing."""
    blocks = await _get_all(cid, get_block, bytes_max)
    return b"".join(read_file(cid, blocks.__getitem__, bytes_max=bytes_max))


async def get_files(
    cid: str,
    get_block: GetBlock,
    *,
    bytes_max: int = FOLDER_BYTES_MAX,
    files_max: int = FOLDER_FILES_MAX,
) -> dict[str, bytes]:
    """The files of a folder by relative path; `get_block` is believed nothing."""
    blocks = await _get_all(cid, get_block, bytes_max)
    return read_folder(cid, blocks.__getitem__, bytes_max=bytes_max, files_max=files_max)


async def _get_all(cid: str, get_block: GetBlock, bytes_max: int) -> dict[str, bytes]:
    """Every block below a name, each one verified, within bounds."""
    blocks: dict[str, bytes] = {}
    bytes_seen = 0
    wanted = [cid]
    gate = asyncio.Semaphore(TRANSFERS_AT_ONCE)

    async def get_one(name: str) -> tuple[str, bytes]:
        async with gate:
            return name, await get_block(name)

    while wanted:
        if len(blocks) + len(wanted) > BLOCKS_PER_FOLDER_MAX:
            raise ContentTooLarge(cid=cid, limit=BLOCKS_PER_FOLDER_MAX, unit="blocks")
        following: dict[str, None] = {}
        for start in range(0, len(wanted), TRANSFERS_AT_ONCE):
            group = wanted[start : start + TRANSFERS_AT_ONCE]
            for name, data in await asyncio.gather(*[get_one(one) for one in group]):
                parsed = parse_cid(name)
                verify_block(parsed, data)
                blocks[name] = data
                bytes_seen += len(data)
                if bytes_seen > 2 * bytes_max:
                    raise ContentTooLarge(cid=cid, limit=bytes_max, unit="bytes")
                following.update((link.text, None) for link in decode_node(parsed, data).links)
        wanted = [name for name in following if name not in blocks]
    return blocks


async def put_folder(folder: Path, put_block: PutBlock) -> str:
    """Hand a folder on disk to `put_block`, block by block; returns its CID."""
    if not folder.is_dir():
        raise FolderNotUsable(folder=folder, reason="it is not a folder")
    return await put_files(await asyncio.to_thread(files_of, folder), put_block)


async def get_folder(
    cid: str,
    into: Path,
    get_block: GetBlock,
    *,
    bytes_max: int = FOLDER_BYTES_MAX,
    files_max: int = FOLDER_FILES_MAX,
) -> None:
    """Write the files of a folder below `into`, which must not exist or be empty."""
    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        raise FolderNotEmpty(folder=into)
    files = await get_files(cid, get_block, bytes_max=bytes_max, files_max=files_max)
    await asyncio.to_thread(_write_files, files, into)


def _write_files(files: Mapping[str, bytes], into: Path) -> None:
    into.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        path = into / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # Exclusive: two names that one file system takes for the same must not overwrite each other.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o644)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
