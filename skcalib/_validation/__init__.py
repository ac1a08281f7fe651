"""Checks of user input, with errors that say what came and what is needed."""

from skcalib._validation._column_classes import (
    BOTH,
    both_of_bool,
    in_another_order,
    like_known,
    preview,
    refuse_index,
)
from skcalib._validation._containers import (
    column_names,
    column_on_host,
    given_back,
    is_dask,
    is_standard,
    is_tensor,
    names_twice,
    readable,
    refuse_dask,
    refuse_masked,
    refuse_outside,
)
from skcalib._validation._dense import as_rows, check_class_axis, spread_weight
from skcalib._validation._event import is_event
from skcalib._validation._from_proba import log_proba_rows, logits_from_proba
from skcalib._validation._groups import (
    check_both_times,
    check_groups,
    check_same_columns,
    check_width,
    plain_names,
    refuse_needed_groups,
    warn_of_namesakes,
)
from skcalib._validation._logits import (
    INDEX_ROWS,
    as_repetitions,
    check_calibration_set,
    check_floats,
    check_logits,
    check_out,
    check_two_classes,
    check_weight,
    effective_number,
    encode_labels,
    one_column,
)
from skcalib._validation._model_classes import (
    classes_of_model,
    in_order_of,
    refuse_order_unlike_model,
)
from skcalib._validation._multi_label import (
    check_all_known,
    check_indicator,
    check_label_proba,
    label_names,
    log_odds_of,
)
from skcalib._validation._options import (
    check_answers,
    like_options,
    pad_options,
)
from skcalib._validation._proba import (
    Batch,
    Rows,
    check_batch,
    check_columns,
    check_proba,
    check_proba_rows,
    check_top_label,
)
from skcalib._validation._share_rows import mean_share, rows_of_shares
from skcalib._validation._shares import is_shares
from skcalib._validation._splits import (
    lone_class,
    make_splits,
    number_equal_rows,
    splits_of,
)
from skcalib._validation._top_logprobs import (
    logits_from_top_logprobs,
    logits_of_options,
)
from skcalib._validation._whole import check_whole

__all__ = [
    "BOTH",
    "INDEX_ROWS",
    "Batch",
    "Rows",
    "as_repetitions",
    "as_rows",
    "both_of_bool",
    "check_all_known",
    "check_answers",
    "check_batch",
    "check_both_times",
    "check_calibration_set",
    "check_class_axis",
    "check_columns",
    "check_floats",
    "check_groups",
    "check_indicator",
    "check_label_proba",
    "check_logits",
    "check_out",
    "check_proba",
    "check_proba_rows",
    "check_same_columns",
    "check_top_label",
    "check_two_classes",
    "check_weight",
    "check_whole",
    "check_width",
    "classes_of_model",
    "column_names",
    "column_on_host",
    "effective_number",
    "encode_labels",
    "given_back",
    "in_another_order",
    "in_order_of",
    "is_dask",
    "is_event",
    "is_shares",
    "is_standard",
    "is_tensor",
    "label_names",
    "like_known",
    "like_options",
    "log_odds_of",
    "log_proba_rows",
    "logits_from_proba",
    "logits_from_top_logprobs",
    "logits_of_options",
    "lone_class",
    "make_splits",
    "mean_share",
    "names_twice",
    "number_equal_rows",
    "one_column",
    "pad_options",
    "plain_names",
    "preview",
    "readable",
    "refuse_dask",
    "refuse_index",
    "refuse_masked",
    "refuse_needed_groups",
    "refuse_order_unlike_model",
    "refuse_outside",
    "rows_of_shares",
    "splits_of",
    "spread_weight",
    "warn_of_namesakes",
]
