"""What one worker does for the whole job: takes in the others, starts attempts, decides how the job ends."""
