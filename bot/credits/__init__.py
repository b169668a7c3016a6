"""What a member may spend: prices, holds, allowances and limits."""
