"""What a node needs to start, looked at before it starts: settings, keys, tokens, card and coalition file.

Beyond what each file says by itself, that they speak of the same things: a name in the settings that is in no
other file is probably misspelt.
"""

from __future__ import annotations

from dataclasses import dataclass

from comity.node.cards import read_card
from comity.node.coalition_file import CoalitionFile, read_coalition
from comity.node.coalitions import epoch_of, verified
from comity.node.config import CONFIG_BYTES_MAX, Config, read_config
from comity.node.home import NODE_KEY, ROLES, TRANSPORT_KEY, Home
from comity.node.keystore import load_key
from comity.node.known_names import names_of_file
from comity.node.notify_secret import read_secret
from comity.node.tokens import read_tokens
from comity.node.toml_document import TomlDocument, read_toml
from comity.protocol.errors import ConfigError
from comity.protocol.identifiers import member_of


@dataclass(frozen=True, slots=True)
class Checked:
    """A home whose node can start.

    Attributes:
        coalition: what it belongs to; None before it has joined one.
        warnings: what prevents no start and was perhaps not meant, each with file, line and key.
    """

    config: Config
    coalition: CoalitionFile | None
    warnings: tuple[str, ...] = ()


def check_home(home: Home) -> Checked:
    """Check a home.

    Raises:
        ConfigError: what is wrong, with file, line and key where there are, and what to do.
    """
    home.require_private()
    _require_there(home)
    config = read_config(home.config)
    document = read_toml(home.config, CONFIG_BYTES_MAX)
    for name in (NODE_KEY, TRANSPORT_KEY):
        load_key(home.key(name))
    read_tokens(home)
    read_secret(home.path, config.notify_secret_file)
    folder = config.store_path(home.path).parent
    if not folder.is_dir():
        raise document.error(("store",), f"there is no folder {folder}")
    _compare_card(home, config, document)
    if not home.coalition.exists():
        return Checked(config, None)
    file = read_coalition(home.coalition)
    try:
        verified(file)
    except ConfigError as exc:
        raise ConfigError(f"{home.coalition}: {exc}") from exc
    _compare_members(file, config, document)
    return Checked(
        config, file, (*_purpose_warnings(file, config, document), *_peer_warnings(file, document))
    )


def _require_there(home: Home) -> None:
    """What is missing is said with what brings it back: `No such file` alone helps nobody."""
    remedies = {
        home.config: "`comity node init` makes the home of a node",
        **{
            home.key(name): "bring it back from a backup; without it this is another node"
            for name in (NODE_KEY, TRANSPORT_KEY)
        },
    }
    for path, remedy in remedies.items():
        if not path.exists():
            raise ConfigError(f"{path}: there is no such file: {remedy}")
    for role in ROLES:
        if not home.token(role).exists():
            raise ConfigError(f"{home.token(role)}: there is no such file: `comity node start` makes it anew")


def _compare_card(home: Home, config: Config, document: TomlDocument) -> None:
    """The card names the member and the node that the settings name: the certificate follows the card."""
    if not home.card.exists():
        # Whoever has sent it away needs it for the next signature alone.
        return
    card = read_card(home.card)
    for key, said, on_card in (("member", config.member, card.member), ("node", config.node, card.node)):
        if said != on_card:
            raise document.error((key,), f"{said} is not on the card beside it; did you mean {on_card}?")


def _compare_members(file: CoalitionFile, config: Config, document: TomlDocument) -> None:
    """Raises: ConfigError: the settings name a member that is none."""
    draft = file.draft
    epoch = file.epochs[-1] if file.epochs else draft
    members = [member.id for member in epoch_of(epoch).members] if epoch is not None else []
    if config.member not in members:
        raise document.unknown_value(("member",), "member of the coalition is", config.member, members)
    for peer in config.peers:
        key = ("peers", peer)
        if peer == config.node:
            raise document.error(key, "this is the node itself, which needs no address of its own")
        if member_of(peer) not in members:
            raise document.unknown_value(key, "member of the coalition is", member_of(peer), members)


def _purpose_warnings(file: CoalitionFile, config: Config, document: TomlDocument) -> list[str]:
    known = names_of_file(file)
    if known is None or not config.purpose:
        return []
    return [str(document.error(("purpose",), each)) for each in known.purpose_warnings([config.purpose])]


def _peer_warnings(file: CoalitionFile, document: TomlDocument) -> list[str]:
    """Nodes of members that the file does not list: certified since it was written, or misspelt."""
    listed = [node.node for entry in file.members for node in entry.nodes]
    return [
        str(document.unknown_value(("peers", peer), "node in coalition.toml is", peer, listed))
        for peer in document.values.get("peers", {})
        if peer not in listed
    ]
