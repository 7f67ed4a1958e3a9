"""What a deployment of a given size needs: nodes, GPU hours, money and latency, on paper."""
