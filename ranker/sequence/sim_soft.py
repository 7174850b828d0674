"""SIM, Search-based Interest Model with soft search (Pi et al., CIKM 2020, section 3.1)."""

from torch import Tensor

from ranker.modules.two_stage import TwoStageEncoder
from ranker.slots import SearchInputs
from ranker_kernels.search_topk import search_topk


class SIMSoft(TwoStageEncoder):
    """Searches by the inner product of embeddings r_j = e_j . e_a, then attends to what it finds.

    The search knows neither the attention's projections nor cross features: the two stages
    disagree on what is relevant, which is the point of TWIN. It compares the embeddings of the
    ranking model as they are; the paper trains W_a and W_b of r_j = (W_b e_j) . (W_a e_a) by an
    auxiliary loss, which this encoder does not have.
    """

    def search(self, inputs: SearchInputs) -> Tensor:
        """Returns the selected behaviours [C, k], -1 for none."""
        query = inputs.query.unsqueeze(1)
        return search_topk(query, inputs.behaviors, None, inputs.windows, k=self.k)
