"""The kinds of stages that a recipe may name: a new kind is its module's import and one line here."""

from __future__ import annotations

from headstart.recipes.downstream_stage import FEW_SHOT
from headstart.recipes.labelled_stage import LABELLED
from headstart.recipes.map_stage import CLUSTER_MAP
from headstart.recipes.meta_stage import META_TRAIN
from headstart.recipes.p3_stage import P3_KIND
from headstart.recipes.pretrain_stage import PRETRAIN
from headstart.recipes.prompted_stage import PROMPTED
from headstart.recipes.prompted_table_stage import PROMPTED_TABLE
from headstart.recipes.rivals_stage import RIVALS_KIND
from headstart.recipes.ship_stage import SHIP
from headstart.recipes.source_stages import CLUSTER, PSEUDO_LABEL
from headstart.recipes.stages import table_of
from headstart.recipes.table_stage import CURVE, TABLE
from headstart.recipes.teacher_stage import TEACHER

KINDS = table_of(
    *(TEACHER, PSEUDO_LABEL, LABELLED, CLUSTER, CLUSTER_MAP, META_TRAIN),
    *(P3_KIND, PRETRAIN, PROMPTED, PROMPTED_TABLE, FEW_SHOT, RIVALS_KIND, TABLE, CURVE, SHIP),
)
