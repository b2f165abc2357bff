"""The work itself: patients are released, pooled under an approval, and survival is estimated from them.

Each phase acts, reads back what happened from event logs, nodes and files, and states what it saw. Nothing
that it states is written down here before.
"""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pandas as pd

from comity.attestation.signing import key_id
from comity.node.keystore import companion, load_public
from demo_main.commands import program
from demo_main.nodes import until
from demo_main.organizations import Organization
from demo_main.patients import (
    NORTH,
    SOUTH,
    STUDIED,
    clinic_patients,
    fit_directly,
    fits_of_table,
    greatest_difference,
    released_directly,
)
from demo_main.processes import DemoError
from demo_main.runs import RUN_S, Run, environment_of
from demo_main.stage import Stage

EQUAL: Final = 1e-9
RELEASED: Final = ("patients", "released")
"""What the job `release` makes."""


def release(stage: Stage) -> None:
    """Both clinics at once: Clinic North over its webserver and daemon, Clinic South by Dagster's command line."""
    cast, story = stage.cast, stage.story
    with story.phase(
        "release", "Both clinics release patients, side by side; a data steward of each has asked for it"
    ):
        with ThreadPoolExecutor(2) as pool:
            north = pool.submit(_launched, stage)
            south = pool.submit(_executed, stage)
            runs = {"north": north.result(), "south": south.result()}
        for organization, institutions in ((cast.north, NORTH), (cast.south, SOUTH)):
            run = runs[organization.name]
            require_made(run, "patients", "released")
            own = clinic_patients(stage.patients, institutions)
            _look_at_patients(stage, organization, run, len(own))
            _look_at_released(stage, organization, run, released_directly(own))


def _launched(stage: Stage) -> Run:
    """A run of Clinic North that its steward launches over GraphQL, and its daemon after the decision."""
    service = stage.service(stage.cast.north)
    service.wait_until_ready()
    steward = stage.cast.stewards["north"]
    said = stage.commands.comity(
        steward.account,
        steward.place,
        *("launch", "release", "--url", service.url, "--wait", str(int(RUN_S))),
        *("--key", steward.key, "--credential", stage.credentials[steward.path]),
        *(part for asset in RELEASED for part in ("--asset", f"{steward.organization.member}/{asset}")),
        *("--home", steward.organization.home),
    )
    stage.launched = said["run"]
    state = service.wait_for(said["run"], "SUCCESS", outcome="execute", launch="handed")
    run = service.read(said["run"])
    permit = stage.decision(stage.cast.north, run.made["patients"]["comity/permit"])
    began = run.events.get("PIPELINE_START", 0.0)
    stage.story.say(
        f"Clinic North: its steward launches run {run.id[:8]} over GraphQL; its daemon has it decided, and it begins "
        f"{began - permit['t']:.0f} s after its permit"
    )
    stage.story.claim(
        "launched_by_daemon",
        {
            "from the queue": "PIPELINE_ENQUEUED" in run.events,
            "decided before it began": state.tags["comity/launch"] == "handed" and permit["t"] <= began,
            "asked for by the steward": stage.requester(stage.cast.north, run) == steward.spiffe,
        },
        records=_ids("north", run.made["patients"]) | {"ticket": said["ticket"]},
        runs={"launched": run.id},
    )
    return run


def _executed(stage: Stage) -> Run:
    """A run of Clinic South by `dagster job execute`, read back from the event log."""
    south = stage.cast.south
    ticket = stage.ticket(stage.cast.stewards["south"], "release", *RELEASED)
    project = south.project_folder
    words = ("-f", str(project / "definitions.py"), "-d", str(project), "-j", "release")
    done = stage.supervisor.run(
        [program("dagster"), "job", "execute", *words],
        south.account,
        environment_of(south, stage.cast.exchange, {"COMITY_TICKET": str(ticket)}),
        south.place,
        RUN_S,
    )
    run = stage.worker(south).read("release")
    if not run.succeeded and not run.failed:
        raise DemoError(
            f"dagster job execute -j release ended with status {done.status}:\n{done.errors[-4000:]}"
        )
    return run


def require_made(run: Run, *assets: str) -> None:
    """Check that a run has made these assets.

    Raises:
        DemoError: it has not, with what Dagster says.
    """
    if not run.succeeded or set(assets) - set(run.made):
        raise DemoError(f"run {run.id} of {run.job} is {run.status}: {run.description()}")


def _look_at_patients(stage: Stage, organization: Organization, run: Run, rows: int) -> None:
    """What was executed whole, and stays at home."""
    said = run.made["patients"]
    permit = stage.decision(organization, said["comity/permit"])
    content = stage.record(organization, said["comity/record"])["body"]["content"]
    home = organization.assets / "patients.parquet"
    away = stage.cast.exchange / organization.member / "patients.parquet"
    stage.story.say(
        f"{organization.title}: patients -> {permit['outcome']}: {content['rows']} rows with all "
        f"{len(content['columns'])} columns, at home only; votes of {_titles(stage, permit)}"
    )
    stage.story.claim(
        "executed",
        {
            "executed": (said["comity/outcome"], permit["outcome"]) == ("execute", "execute"),
            "all rows": content["rows"] == rows,
            "at home only": home.exists() and not away.exists(),
        },
        records=_ids(organization.name, said),
        runs={organization.name: run.id},
    )


def _look_at_released(stage: Stage, organization: Organization, run: Run, expected: pd.DataFrame) -> None:
    """What was restricted: which columns, which rows, and what of it is told to nobody."""
    said = run.made["released"]
    permit = stage.decision(organization, said["comity/permit"])
    content = stage.record(organization, said["comity/record"])["body"]["content"]
    table = pd.read_parquet(stage.cast.exchange / organization.member / "released.parquet")
    stage.rows_released += content["rows"]
    if organization is stage.cast.south:
        stage.released_before = said["comity/record"]
    obligations = [term["message"] or term["code"] for term in said.get("comity/obligations", [])]
    stage.story.say(
        f"{organization.title}: released -> {permit['outcome']}: {content['rows']} rows, columns "
        f"{', '.join(content['columns'])}; withheld: {', '.join(said.get('comity/columns_withheld', []))}; "
        f"{'; '.join(obligations)}"
    )
    withheld = [row for row in stage.withheld(organization) if row["asset"].endswith("/released")]
    for row in withheld:
        stage.story.say(
            f"    listed at home only: {row['rows']} rows of {row['column']} {', '.join(row['values'])}"
        )
    stage.story.claim(
        "restricted",
        {
            "restricted": (said["comity/outcome"], permit["outcome"]) == ("restrict", "restrict"),
            "columns": tuple(content["columns"]) == tuple(table.columns) == STUDIED,
            "the right rows": content["rows"] == len(table) and table.equals(expected.reset_index(drop=True)),
            "what is withheld": sum(row["rows"] for row in withheld) == said.get("comity/rows_withheld"),
        },
        records=_ids(organization.name, said),
        runs={organization.name: run.id},
    )


def _ids(name: str, said: Any) -> dict[str, str]:
    """The records that a materialization names."""
    return {
        f"{name}_{what}": said[f"comity/{key}"]
        for what, key in (("intent", "intent"), ("permit", "permit"), ("actuation", "record"))
    }


def _titles(stage: Stage, permit: dict[str, Any]) -> str:
    return ", ".join(stage.cast.titles[vote["member"]] for vote in permit["votes"])


def pool(stage: Stage) -> None:
    """The institute's sensor asks for the pooling; the run is held for an approval, which somebody else gives."""
    cast, story = stage.cast, stage.story
    with story.phase(
        "defer", "The institute's sensor sees what was released and asks to pool it; that needs an approval"
    ):
        held = _held_run(stage)
        intent = held.tags["comity/intent"]
        story.say(
            f"its daemon has run {held.id[:8]} in the queue, where it is held: it needs {held.tags['comity/needs']}"
        )
        waiting = {row["intent"] for row in stage.node(cast.institute).client().waiting()}
        before = stage.intent(intent)
        way = give_approval(stage, intent)
        run = _released_run(stage)
        require_made(run, "pooled")
        said = run.made["pooled"]
        (approval,) = _approvals(stage, intent)
        record = stage.record(cast.institute, approval)
        rows = stage.record(cast.institute, said["comity/record"])["body"]["content"]["rows"]
        story.say(
            f"{way}; the held run goes on by itself, under the same intent {intent[:16]}: pooled -> "
            f"{said['comity/outcome']}, {rows} rows"
        )
        away = cast.officer.organization
        story.claim(
            "deferred_then_executed",
            {
                "it waited": intent in waiting and before["standing"] == "deferred" and not before["permit"],
                "the same intent": said["comity/intent"] == intent and intent in record["header"]["subject"],
                "approved by another organization": record["member"] == away.member,
                "by a key that is not the requester's": record["header"]["key"]
                not in key_ids(cast.institute.place),
            },
            records={"approval": approval, **_ids("pooled", said)},
            runs={"executed": run.id},
        )
        story.claim(
            "held_run_released",
            {
                "it was held in the queue": (held.status, held.tags["comity/hold"]) == ("QUEUED", "held"),
                "nothing was made before": not held.made,
                "the very run was released": (run.id, run.tags.get("comity/hold")) == (held.id, "released"),
                "asked for by a sensor": run.tags.get("dagster/sensor_name") == "pooling",
            },
            records={"approval": approval, **_ids("pooled", said)},
            runs={"released": run.id},
        )
        # From here on the institute makes each thing when the demo says so.
        stage.service(cast.institute).end()


def _held_run(stage: Stage) -> Run:
    """The run that the sensor has asked for, when it is held."""
    found: list[Run] = []

    def held() -> bool:
        run = stage.worker(stage.cast.institute).newest("make_pooled")
        found[:] = [run] if run is not None else []
        # First it says why it is held, then it is in the queue.
        return run is not None and (run.tags.get("comity/hold"), run.status) == ("held", "QUEUED")

    until(held, RUN_S, "the sensor's run to be held")
    return found[0]


def _released_run(stage: Stage) -> Run:
    """The same run, when it has ended."""
    found: list[Run] = []

    def ended() -> bool:
        run = stage.worker(stage.cast.institute).read("make_pooled")
        found[:] = [run]
        return run.status in ("SUCCESS", "FAILURE", "CANCELED")

    until(ended, RUN_S, "the held run to be released and to end")
    return found[0]


def _approvals(stage: Stage, intent: str) -> list[str]:
    """Ids of the approvals of an intent that the institute's node holds."""
    return [row["approval"] for row in stage.intent(intent)["approvals"]]


def give_approval(stage: Stage, intent: str) -> str:
    """The officer of Clinic South approves, at that clinic's node. Answers with how, in words."""
    officer = stage.cast.officer
    away = officer.organization
    if stage.browser is None:
        stage.comity(
            away,
            *("approve", intent, "--yes", "--key", officer.key, "--home", away.home),
            *("--credential", stage.credentials[officer.path]),
        )
        return (
            f"{officer.title.capitalize()} of {away.title} approves with `comity approve`, by a key that lies in "
            f"{officer.place.name}/ and not at the institute"
        )
    stage.browser.approve(intent, stage.results / "approval.png")
    return (
        f"{officer.title.capitalize()} of {away.title} approves in the page of that clinic's node, with a key that was "
        "made in the browser and never leaves it"
    )


def key_ids(place: Path) -> set[str]:
    """The ids of the private keys that lie anywhere below a folder."""
    return {key_id(load_public(companion(path))).hex() for path in place.rglob("*.pem")}


def spelled(terms: list[dict[str, Any]]) -> str:
    """Causes or needs in words."""
    return "; ".join(term["message"] or f"{term['code']} {term['parameters']}" for term in terms)


def estimate(stage: Stage) -> None:
    """Survival is estimated, is what it would be without Comity, and belongs to the institute alone."""
    cast, story = stage.cast, stage.story
    with story.phase(
        "transition", "The institute estimates survival; both clinics have released their say over it"
    ):
        run = stage.make("make_survival")
        require_made(run, "survival")
        said = run.made["survival"]
        stage.survival = said["comity/record"]
        table = pd.read_parquet(cast.institute.assets / "survival.parquet")
        stage.fits = fits_of_table(table)
        stage.direct = fit_directly(released_directly(stage.patients))
        difference = greatest_difference(stage.fits, stage.direct)
        story.say(
            f"survival -> {said['comity/outcome']}: Kaplan-Meier by sex and a Cox model, {len(stage.fits)} estimates; "
            f"fitted directly on the same rows they differ by at most {difference:.1e}"
        )
        story.claim(
            "curves_equal",
            {"equal to 1e-9": difference <= EQUAL},
            records=_ids("survival", said),
            runs={"survival": run.id},
        )
        made = stage.record(cast.institute, stage.survival)
        (source,) = made["body"]["inputs"]
        before = stage.record(cast.institute, source)["header"]["governance"]["owners"]
        after = made["header"]["governance"]["owners"]
        story.say(
            f"pooled has {len(before)} owners ({_named(stage, before)}), survival {len(after)} "
            f"({_named(stage, after)}): the clinics' signed transitions release it, and nothing else"
        )
        story.claim(
            "owners_released",
            {
                "the clinics owned pooled": {cast.north.member, cast.south.member} <= set(before),
                "survival is the institute's": after == [cast.institute.member],
            },
            records={"pooled_actuation": source, "survival_actuation": stage.survival}
            | {f"transition_{member}": record for member, record in stage.transitions.items()},
        )


def _named(stage: Stage, members: list[str]) -> str:
    return ", ".join(stage.cast.titles[member] for member in members)


def delegate(stage: Stage) -> None:
    """An agent does what it was delegated, and one step more."""
    cast, story = stage.cast, stage.story
    with story.phase(
        "agent", "An agent of the institute works under an operator's delegation, with its own key"
    ):
        inside = as_agent(stage, "make_events_by_ecog", "drafts/events_by_ecog")
        require_made(inside, "drafts/events_by_ecog")
        said = inside.made["drafts/events_by_ecog"]
        asked = stage.record(cast.institute, said["comity/intent"])["body"]
        link = stage.record(cast.institute, asked["credential"])
        delegator = stage.record(cast.institute, link["header"]["authority"])["body"]["subject"]
        story.say(
            f"{asked['requester']} asks for drafts/events_by_ecog, a count of deaths -> "
            f"{said['comity/outcome']}; it was delegated {', '.join(link['body']['assets'])} by {delegator}"
        )
        story.claim(
            "agent_admitted",
            {
                "asked by the agent": asked["requester"] == cast.agent.spiffe,
                "by its own key": link["body"]["key"]["value"] == load_public(cast.agent.public).value.hex(),
                "delegated by the operator": delegator == cast.operator.spiffe,
            },
            records={
                "credential": asked["credential"],
                "delegation": link["header"]["authority"],
                **_ids("draft", said),
            },
            runs={"admitted": inside.id},
        )
        outside = as_agent(stage, "make_survival", "survival")
        failure = outside.failure()
        causes = failure.get("comity/causes", [])
        bound: dict[str, Any] = next((c["parameters"] for c in causes if c["code"] == "credential_bound"), {})
        intent = stage.intent(failure["comity/intent"])
        story.say(
            f"the same agent asks for survival -> {failure.get('comity/outcome')}: its credential bounds "
            f"{bound.get('bound')}, wanted was {bound.get('wanted')}"
        )
        story.claim(
            "agent_refused",
            {
                "refused": failure.get("comity/outcome") == "refuse" and bool(intent["refusal"]),
                "nothing was made": not outside.made,
                "asked by the agent": intent["requester"] == cast.agent.spiffe,
                "the bound is named": (bound.get("bound"), bound.get("wanted"))
                == ("assets", f"{cast.institute.member}/survival"),
            },
            records={"intent": intent["intent"], "refusal": intent["refusal"]},
            runs={"refused": outside.id},
        )


def as_agent(stage: Stage, job: str, asset: str) -> Run:
    """A run that the agent asks for: it names the run, and signs a launch ticket for it with its own key."""
    run = str(uuid.uuid4())
    return stage.make(job, run, COMITY_TICKET=str(stage.ticket(stage.cast.agent, job, asset, run=run)))
