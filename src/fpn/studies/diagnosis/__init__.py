"""Why objects were missed and what was found in vain, stage by stage, in points of average precision."""
