"""How ``-tr nnUNetTrainerECCaM`` is found in a shell with nothing exported.

nnU-Net (2.8 and newer) searches the folders of the environment variable ``nnUNet_extTrainer`` for
trainers that it does not ship. Nobody should have to export it, for training and again for every
prediction, so this package adds its own folder to that list, in every process that uses nnU-Net:

1. ``nnunetv2_eccam.pth`` lies in site-packages. Python runs its one line at start-up; an error in it
   is swallowed, so that no program of the environment can be broken by it.
2. That line calls :func:`nnunetv2_eccam.lookup.hook.install`, which waits for the import of
   ``nnunetv2`` and does nothing in a program that never imports it.
3. Then ``nnUNet_extTrainer`` is given ``nnunetv2_eccam/ext`` behind whatever the user has set, and
   wherever nnU-Net looks the variable up. Nothing is written into nnU-Net's folder, no command of
   nnU-Net is replaced, and the processes that a program starts do not inherit anything.

``nnUNet_eccam_lookup=0`` turns it off. By hand (``pip install --target``, a zipped environment,
``python -S``): ``export nnUNet_extTrainer="$(python -m nnunetv2_eccam trainer-path)"``.
"""
