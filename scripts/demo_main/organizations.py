"""Who takes part: four organizations with a node each, and people and an agent with keys of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from demo_main.accounts import Account


@dataclass(frozen=True, slots=True)
class Organization:
    """One member of the coalition, and where everything of it lies: under one folder, of its own user.

    `project` names its Dagster project among the demo's sites; empty where it runs nothing.
    """

    name: str
    member: str
    title: str
    place: Path
    account: Account
    project: str = ""

    @property
    def home(self) -> Path:
        """The home of its node."""
        return self.place / "node"

    @property
    def dagster_home(self) -> Path:
        return self.place / "dagster"

    @property
    def project_folder(self) -> Path:
        return self.place / "project"

    @property
    def assets(self) -> Path:
        return self.place / "assets"

    @property
    def logs(self) -> Path:
        return self.place / "logs"


@dataclass(frozen=True, slots=True)
class Subject:
    """A person or an agent with an own key, in a folder of its own.

    People use the programs of their organization's user; the agent is a user of its own.
    """

    path: str
    title: str
    organization: Organization
    place: Path
    account: Account

    @property
    def key(self) -> Path:
        return self.place / "key.pem"

    @property
    def public(self) -> Path:
        return self.place / "key.pub.json"

    @property
    def spiffe(self) -> str:
        return f"spiffe://{self.organization.member}/{self.path}"


ACCOUNTS: Final = ("north", "south", "institute", "board", "agent", "stranger")
"""The stranger verifies the bundle: belongs to nobody, and has nothing but the bundle and the roots."""


@dataclass(frozen=True, slots=True)
class Cast:
    """Everybody, under one folder. `stewards` by the name of their clinic."""

    place: Path
    north: Organization
    south: Organization
    institute: Organization
    board: Organization
    stewards: Mapping[str, Subject]
    officer: Subject
    operator: Subject
    agent: Subject
    stranger: Account

    @classmethod
    def at(cls, place: Path, accounts: dict[str, Account]) -> Cast:
        north = Organization(
            "north", "clinic-north.example", "Clinic North", place / "north", accounts["north"], "clinic"
        )
        south = Organization(
            "south", "clinic-south.example", "Clinic South", place / "south", accounts["south"], "clinic"
        )
        institute = Organization(
            "institute",
            "institute.example",
            "Institute",
            place / "institute",
            accounts["institute"],
            "institute",
        )
        board = Organization(
            "board", "ethics-board.example", "Ethics Board", place / "board", accounts["board"]
        )
        stewards = {
            clinic.name: Subject(
                path,
                f"a data steward of {clinic.title}",
                clinic,
                place / f"{clinic.name}-steward",
                clinic.account,
            )
            for clinic, path in ((north, "steward/2c90"), (south, "steward/81fe"))
        }
        officer = Subject(
            "officer/4d11", "the data protection officer", south, place / "south-officer", south.account
        )
        operator = Subject(
            "operator/7f3a", "an operator", institute, place / "institute-operator", institute.account
        )
        agent = Subject(
            "agent/trend-finder", "an agent", institute, place / "institute-agent", accounts["agent"]
        )
        return cls(
            place, north, south, institute, board, stewards, officer, operator, agent, accounts["stranger"]
        )

    @property
    def organizations(self) -> tuple[Organization, ...]:
        return (self.north, self.south, self.institute, self.board)

    @property
    def workers(self) -> tuple[Organization, ...]:
        """Those who run Dagster."""
        return tuple(each for each in self.organizations if each.project)

    @property
    def subjects(self) -> tuple[Subject, ...]:
        return (*self.stewards.values(), self.officer, self.operator, self.agent)

    @property
    def exchange(self) -> Path:
        """The shared folder: each member writes in its own subfolder, everybody reads."""
        return self.place / "exchange"

    @property
    def titles(self) -> dict[str, str]:
        return {each.member: each.title for each in self.organizations}
