"""Eta Inversion for ComfyUI: edit a real photograph by changing words of its prompt."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """The extension with the pack's nodes; a failure is logged with its traceback, the host prints one line
    only.
    """
    import logging

    try:
        from .nodes import EtaInversionExtension
    except Exception:
        logging.exception("Eta Inversion could not be loaded")
        raise
    return EtaInversionExtension()
