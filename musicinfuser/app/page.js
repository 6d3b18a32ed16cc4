() => {
  // Both videos run together, and only the first one sounds: two copies of a song a little apart
  // are no music. Played by itself, the second one has its sound.
  const video = (name) => document.querySelector(`#${name} video`);
  let following = false;
  const together = (event) => {
    const first = video("with-music"), second = video("without-music");
    if (event.target === first && second) {
      following = event.type === "play";
      second.muted = true;
      second.currentTime = first.currentTime;
      if (event.type === "play") second.play();
      if (event.type === "pause") second.pause();
    } else if (event.target === second && event.type === "play" && !following) {
      second.muted = false;
      if (first) first.pause();
    }
    if (event.target === second && event.type === "play") following = false;
  };
  for (const type of ["play", "pause", "seeked"]) document.addEventListener(type, together, true);
}
