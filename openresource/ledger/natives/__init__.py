"""The functions of AI Network's chain that ours keeps: transfers, apps, payments and their like, one file per subject.

They write through operations, under the rules; natives of the market get a draft instead. Open `transfer.py` first.
"""
