def test_every_node_is_there(host):
    ours = {
        name for name in host.nodes.NODE_CLASS_MAPPINGS if name.startswith("Eta") or name == "AttentionMask"
    }
    assert ours == {
        "EtaInversion",
        "EtaSchedule",
        "AttentionMask",
        "EtaSampler",
        "EtaEditMask",
        "EtaFlowEdit",
        "EtaSaveInversion",
        "EtaLoadInversion",
        "EtaSamplerSelect",
        "EtaSigmas",
        "EtaPromptPair",
        "EtaPromptToPrompt",
        "EtaMasaCtrl",
        "EtaPlugAndPlay",
        "EtaRegionEdit",
        "EtaCompare",
        "EtaMetrics",
        "EtaVerdict",
        "EtaApprove",
        "EtaTune",
        "EtaTuneExample",
        "EtaCrop",
        "EtaStitch",
        "EtaKeep",
        "EtaSaveEdited",
        "EtaTargetWords",
    }
