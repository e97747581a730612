"""SD3 and SD3.5: every block attends to text and image together; some attend to the image once more alone."""

from comfy.ldm.modules.diffusionmodules.mmdit import MMDiT

from .joint import JointFamily

SD3 = JointFamily(MMDiT, blocks=("joint_blocks",))
