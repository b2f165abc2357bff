"""What the codes of the bridge say: why a step of Dagster is stopped in its own process."""

from __future__ import annotations

from functools import partial
from typing import Final

from comity.node.cause_page import CausePage, said

_bridge = partial(said, "bridge")
_ASSET: Final = "the author of the asset"
_OPERATOR: Final = "the operator of the node"
_AGAIN: Final = "Run the step again: it asks again by itself."
_DOCTOR: Final = "comity node doctor"
_MANAGER: Final = (
    "Give the asset an IO manager that binds content to lineage, such as the bridge's own for files."
)

PAGES: Final[tuple[CausePage, ...]] = (
    _bridge(
        "column_not_restrictable",
        "A column may hold withheld values inside of its encoding, so it cannot be narrowed.",
        _ASSET,
        "Give it a plain type.",
        related="column_not_writable",
    ),
    _bridge(
        "column_not_writable",
        "A column cannot be written in the format of the file.",
        _ASSET,
        "Give it another type, or the asset another format.",
        related="not_a_table",
    ),
    _bridge(
        "columns_none_permitted",
        "The permit allows none of the columns that the table has.",
        _ASSET,
        "Compare the declared columns with those that are permitted.",
        "comity intent explain --asset ASSET",
        related="no_authority",
    ),
    _bridge(
        "columns_not_named",
        "The columns of the table have no distinct names that are text.",
        _ASSET,
        "Name each column.",
        related="index_named",
    ),
    _bridge(
        "config_wrong",
        "The configuration of the bridge is wrong.",
        "the operator of the code location",
        "The sentence says where.",
        _DOCTOR,
        related="node_unreachable",
    ),
    _bridge(
        "check_failed",
        "A check of the asset that blocks has failed in what the step made, before it was promoted: it is discarded,"
        " and what was there before stays.",
        "whoever writes the code, or delivers the data",
        "Look at what the check says; run the step again once it can pass.",
        related="staged_rows_not_permitted",
    ),
    _bridge(
        "dry_run",
        "It was a dry run: what was staged is within its permit, and was taken away.",
        "nobody",
        "Nothing is to be mended. Where more than a dry run serves the purpose, the signed policy says so (`ways`).",
        related="way_not_possible",
    ),
    _bridge(
        "not_kept_apart",
        "The least harmful way was chosen, in which the result is kept where no reader of the asset looks, and whoever"
        " writes it in this run cannot do that.",
        _ASSET,
        "Let the run use the IO manager that the definitions name, one that binds content"
        " (GovernedFilesIOManager).",
        related="output_not_bound",
    ),
    _bridge(
        "context_drifted",
        "Files of the code location were changed between the step's request and the end of its work: what ran may not"
        " be what was permitted, so it is discarded.",
        "whoever deploys code",
        "Deploy between runs, and run the step again: it asks with the code that is there now.",
        related="staged_bytes_changed",
    ),
    _bridge(
        "definitions_not_governed",
        "An asset that signed policy may govern is written by definitions that were not given to govern().",
        _ASSET,
        "Write govern(defs) where the definitions are made.",
        related="output_not_bound",
    ),
    _bridge(
        "governed_list_missing",
        "The node has not written down yet what is governed, and these definitions were not given to govern(). The"
        " run is held until it is known.",
        "the operator of the node",
        "Start the node, and wait until it has the policies of its epoch.",
        related="governance_missing definitions_not_governed",
    ),
    _bridge(
        "facts_invalid",
        "The step cannot be described to the node: a name is no asset's, for instance.",
        _ASSET,
        "The sentence says what.",
        related="intent_unwritable",
    ),
    _bridge(
        "file_missing",
        "A file that is to be read is not there yet.",
        "whoever makes it",
        "Run the step again once it is there; a retry policy may do so.",
        related="file_unusable",
    ),
    _bridge(
        "file_unusable",
        "A file cannot be read or written.",
        "the operator of the code location",
        "The sentence says why: its rights, or the disk.",
        related="file_missing",
    ),
    _bridge(
        "index_named",
        "The index of a table has names, which would be lost in the file.",
        _ASSET,
        "Call reset_index() on it.",
        related="columns_not_named",
    ),
    _bridge(
        "input_not_bound",
        "A governed input is read by what does not verify bytes against lineage.",
        _ASSET,
        _MANAGER,
        related="output_not_bound",
    ),
    _bridge(
        "materialization_not_an_output",
        "The step reports a materialization by itself, past the gate.",
        _ASSET,
        "Return it as an output of the asset.",
        related="definitions_not_governed",
    ),
    _bridge(
        "metadata_reserved",
        "The result of a function says in its metadata what only the bridge may say.",
        _ASSET,
        "Use keys that do not begin with comity/.",
        related="materialization_not_an_output",
    ),
    _bridge(
        "not_a_table",
        "A value or a file is no table.",
        _ASSET,
        "Return a table, or use another IO manager.",
        related="column_not_writable",
    ),
    _bridge(
        "obligation_column_invalid",
        "Rows cannot be grouped by the column that an obligation names: its type has no equality.",
        "the author of the policy",
        "Oblige by another column.",
        "comity policy lint FILE",
        related="obligation_invalid",
    ),
    _bridge(
        "obligation_column_missing",
        "The table lacks the column that an obligation names.",
        _ASSET,
        "Have the table hold it.",
        related="min_group_rows",
    ),
    _bridge(
        "obligation_invalid",
        "An obligation has other parameters than it takes.",
        "the author of the policy",
        "Mend the rule's obligation, and publish the policy.",
        "comity policy lint FILE",
        related="obligation_unknown",
    ),
    _bridge(
        "obligation_unknown",
        "This release cannot do what the permit obliges to; so nothing is written.",
        "the author of the policy",
        "Oblige to what all members' releases know.",
        "comity policy lint FILE",
        related="min_group_rows",
    ),
    _bridge(
        "obligation_unmet",
        "The obligations take out rows again and again, without an end.",
        "the author of the policy",
        "Oblige to less at once.",
        related="min_group_rows",
    ),
    _bridge(
        "output_excluded",
        "The permit leaves this output out.",
        "whoever runs the step",
        "See the other causes of its decision.",
        "comity why RUN",
        related="no_authority extent_empty",
    ),
    _bridge(
        "output_not_bound",
        "A governed output is written by what binds no content to lineage.",
        _ASSET,
        _MANAGER,
        related="input_not_bound",
    ),
    _bridge(
        "output_not_listed",
        "The permit does not list this output or partition: the step did not ask for it.",
        _ASSET,
        "Make what the step declares.",
        related="not_permitted",
    ),
    _bridge(
        "partitions_not_mapped",
        "An output of several partitions does not say which row is of which.",
        _ASSET,
        "Return a table for each partition.",
        related="rows_by_missing",
    ),
    _bridge(
        "permit_expired",
        "The permit ended before the work began.",
        "whoever runs the step",
        _AGAIN,
        related="voted_twice",
    ),
    _bridge(
        "read_refused",
        "The node does not admit the bytes, and gives no cause.",
        _OPERATOR,
        "Its log says why.",
        related="content_changed",
    ),
    _bridge(
        "restriction_not_enforceable",
        "The permit is restricted, and the IO manager of the output cannot narrow it; so nothing is written.",
        _ASSET,
        _MANAGER,
        related="output_not_bound",
    ),
    _bridge(
        "rows_not_as_signed",
        "A partner's file says another number of rows than its record.",
        "its writer",
        "Its writer makes it anew.",
        "comity lineage show ASSET",
        related="content_changed",
    ),
    _bridge(
        "staged_bytes_changed",
        "What lies in staging is not what was written there a moment before. It is discarded, and what was there before"
        " stays.",
        "the operator",
        "Find out who else writes into the directory of the assets.",
        related="file_unusable",
    ),
    _bridge(
        "staged_column_not_permitted",
        "The work has written its table by itself, with a column that its permit does not allow. It is discarded, and a"
        " record says so; what was there before stays.",
        _ASSET,
        "Write only the columns that are permitted, or return the table: then the file manager leaves out the others.",
        related="column_not_permitted staged_rows_not_permitted",
    ),
    _bridge(
        "staged_rows_of_another_partition",
        "What the step made has rows that belong to another partition, by the column that `partition_expr` names. It is"
        " discarded, and what was there before stays.",
        _ASSET,
        "Make the rows of the partition alone; or mend `partition_expr` in the asset's metadata.",
        related="staged_type_differs",
    ),
    _bridge(
        "staged_type_differs",
        "A column of what the step made is of another type than the definitions declare. It is discarded, and what was"
        " there before stays.",
        _ASSET,
        "Give the column the declared type, or declare the one that it has (`dagster/column_schema`).",
        related="staged_rows_of_another_partition",
    ),
    _bridge(
        "staged_rows_not_permitted",
        "The work has written its table by itself, with groups of rows that are smaller than its permit asks for. It is"
        " discarded, and a record says so; what was there before stays.",
        _ASSET,
        "Leave out the small groups, or return the table: then the file manager takes them out.",
        related="min_group_rows staged_column_not_permitted",
    ),
    _bridge(
        "table_too_large",
        "A partner's table takes more memory than it may.",
        "the operator of the code location; its writer",
        "Raise partner_bytes_max of the file manager; or have its writer split it into partitions.",
        related="rows_not_as_signed",
    ),
    _bridge(
        "type_reports_values",
        "The check of the output's type would describe values that a restriction withholds.",
        _ASSET,
        "Give the output a plain annotation.",
        related="metadata_reserved",
    ),
    _bridge(
        "voted_twice",
        "The permit was asked for again, because a voter is shown to have voted twice, and what is decided now"
        " differs from what the step began with.",
        "whoever runs the step",
        _AGAIN,
        related="permit_expired",
    ),
)
