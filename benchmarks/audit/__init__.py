"""How well `lime-edge audit` tells trojaned skills from clean ones."""
