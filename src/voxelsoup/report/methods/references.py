"""The papers that a study's methods rest on, numbered in the order in which they are cited."""

from __future__ import annotations

WORKS = {
    "adamw": "Loshchilov I, Hutter F. Decoupled weight decay regularization. ICLR 2019.",
    "bootstrap": "Efron B. Better bootstrap confidence intervals. Journal of the American "
    "Statistical Association 1987;82(397):171–185.",
    "halving": "Jamieson K, Talwalkar A. Non-stochastic best arm identification and "
    "hyperparameter optimization. AISTATS 2016.",
    "hierarchical": "Sanjeev S, Zhaksylyk N, Almakky I, et al. FissionFusion: fast geometric "
    "generation and hierarchical souping for medical image analysis. MICCAI 2024.",
    "holm": "Holm S. A simple sequentially rejective multiple test procedure. Scandinavian "
    "Journal of Statistics 1979;6(2):65–70.",
    "mednext": "Roy S, Koehler G, Ulrich C, et al. MedNeXt: transformer-driven scaling of "
    "ConvNets for medical image segmentation. MICCAI 2023.",
    "monai": "Cardoso MJ, Li W, Brown R, et al. MONAI: an open-source framework for deep "
    "learning in healthcare. arXiv:2211.02701, 2022.",
    "nnunet": "Isensee F, Jaeger PF, Kohl SAA, Petersen J, Maier-Hein KH. nnU-Net: a "
    "self-configuring method for deep learning-based biomedical image segmentation. Nature "
    "Methods 2021;18:203–211.",
    "radam": "Liu L, Jiang H, He P, et al. On the variance of the adaptive learning rate and "
    "beyond. ICLR 2020.",
    "schedule-free": "Defazio A, Yang X, Mehta H, Mishchenko K, Khaled A, Cutkosky A. The road "
    "less scheduled. NeurIPS 2024.",
    "replacement": "Isensee F, Jaeger PF, Full PM, Vollmuth P, Maier-Hein KH. nnU-Net for brain "
    "tumor segmentation. BrainLes 2020, arXiv:2011.00848.",
    "snakemake": "Mölder F, Jablonski KP, Letcher B, et al. Sustainable data analysis with "
    "Snakemake. F1000Research 2021;10:33.",
    "soups": "Wortsman M, Ilharco G, Gadre SY, et al. Model soups: averaging weights of multiple "
    "fine-tuned models improves accuracy without increasing inference time. ICML 2022.",
    "strata": "van Elteren P. On the combination of independent two sample tests of Wilcoxon. "
    "Bulletin of the International Statistical Institute 1960;37:351–361.",
    "surface-dice": "Nikolov S, Blackwell S, Zverovitch A, et al. Clinically applicable "
    "segmentation of head and neck anatomy for radiotherapy: deep learning algorithm development "
    "and validation study. Journal of Medical Internet Research 2021;23(7):e26151.",
    "wilcoxon": "Wilcoxon F. Individual comparisons by ranking methods. Biometrics Bulletin "
    "1945;1(6):80–83.",
}

# Values of settings that stand for a paper of their own.
CITED_VALUES = ("schedule-free", "adamw", "radam")


class Citations:
    """Marks for a text, as ``[1]``; a work keeps the number of its first citation."""

    def __init__(self) -> None:
        self.cited: list[str] = []

    def __call__(self, *works: str) -> str:
        """The mark of one or several of `WORKS`."""
        self.cited += [work for work in dict.fromkeys(works) if work not in self.cited]
        numbers = sorted(self.cited.index(work) + 1 for work in works)
        return f"[{', '.join(map(str, numbers))}]"

    @property
    def references(self) -> list[str]:
        """What has been cited, in the order of the numbers."""
        return [WORKS[work] for work in self.cited]
