#!/usr/bin/env bash
# Makes the pictures of README.md and of docs/ from the benchmark of all systems in docs/reference/systems.md.
# Usage, in the environment that has the package and nnU-Net's folders:   docs/images/make_pictures.sh systems_trial
set -euo pipefail
work=${1:?the work folder of the benchmark of all systems}
here=$(cd "$(dirname "$0")" && pwd)
data=$nnUNet_raw/Dataset002_Heart
models=$nnUNet_results/Dataset002_Heart
shown=$(mktemp -d)
trap 'rm -rf "$shown"' EXIT

trainer() { echo "nnUNetTrainerECCaM${1:+_$1}_1epoch"; }
predictions() { echo "$work/predictions/repeat_0/Dataset002_Heart/2d_systems/$(trainer "$1")/test"; }
model() { echo "$models/$(trainer "$1")__nnUNetPlans__2d_systems"; }

# Fig. 4: slices x systems.
nnUNetv2_eccam overlay -o "$here/overlay.png" --images "$data/imagesTs" --reference "$data/labelsTs" \
    --system "U-Net=$(predictions UNet)" --system "Attention U-Net=$(predictions AttentionUNet)" \
    --system "DA-Net=$(predictions DANet)" --system "CE-Net=$(predictions CENet)" \
    --system "EC-CaM-UNet=$(predictions '')" --cases la_004 la_008 la_019 --dpi 150 --crop 12

# One system's errors.
nnUNetv2_eccam overlay -o "$here/errors.png" --images "$data/imagesTs" --reference "$data/labelsTs" \
    --system "U-Net=$(predictions UNet)" --system "EC-CaM-UNet=$(predictions '')" \
    --cases la_004 la_005 --style errors --dpi 150 --crop 12

# Fig. 6: what leaves the attention, of several systems.
nnUNetv2_eccam attention activation -i "$data/imagesTs/la_004_0000.nii.gz" --reference "$data/labelsTs/la_004.nii.gz" \
    -o "$shown" -device cpu --rows 2 --dpi 150 --disable_progress_bar \
    --system "U-Net + CoA=$(model UNet_CoA)" --system "Attention U-Net=$(model AttentionUNet)" \
    --system "U-Net + SE=$(model UNet_SE)" --system "DA-Net=$(model DANet)" --system "U-Net + CBAM=$(model UNet_CBAM)"
cp "$(ls "$shown"/*.png)" "$here/attention.png"
