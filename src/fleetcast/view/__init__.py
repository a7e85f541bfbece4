"""What a person sees: verbs, the command line, tables, reports, figures, exports. The top floor."""
