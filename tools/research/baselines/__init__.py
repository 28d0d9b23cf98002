"""Other ways to localize on the same map, to compare with: keypoints, matching and PnP.

Not part of the localizer: `pixloc shots --method` runs them on the same frames and priors.
"""
