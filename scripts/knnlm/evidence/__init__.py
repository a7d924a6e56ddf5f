"""From numbers to evidence: metrics, intervals, tables, figures. Imports no torch."""
