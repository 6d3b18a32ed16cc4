"use strict";
// Plays the clips of a group together. Without it every player still works by itself.
const FARTHEST_APART_SECONDS = 0.06;
const groups = [...document.querySelectorAll(".group")].map((clips) => {
  const videos = [...clips.querySelectorAll("video")];
  const button = clips.querySelector(".play");
  const loop = clips.querySelector(".loop");
  if (!videos.length) return null;
  clips.querySelector(".controls").hidden = false;
  let together = false;
  const group = {
    stop() {
      if (!together) return;
      together = false;
      videos.forEach((video) => { video.pause(); video.muted = false; });
      button.textContent = "Play all";
      button.setAttribute("aria-pressed", "false");
    },
    start() {
      groups.forEach((other) => other && other.stop());
      together = true;
      button.textContent = "Stop";
      button.setAttribute("aria-pressed", "true");
      videos.forEach((video, index) => {
        // All play the same music, which several players at once would only blur.
        video.muted = index > 0;
        video.currentTime = 0;
        video.play().catch(() => group.stop());
      });
      requestAnimationFrame(follow);
    },
  };
  function follow() {
    if (!together) return;
    const first = videos[0];
    videos.slice(1).forEach((video) => {
      const apart = Math.abs(video.currentTime - first.currentTime);
      if (!video.ended && !first.ended && !video.seeking && apart > FARTHEST_APART_SECONDS) {
        video.currentTime = Math.min(first.currentTime, video.duration || first.currentTime);
      }
    });
    if (videos.every((video) => video.ended)) {
      group.stop();
      if (loop.checked) group.start();
      return;
    }
    requestAnimationFrame(follow);
  }
  button.setAttribute("aria-pressed", "false");
  button.addEventListener("click", () => (together ? group.stop() : group.start()));
  return group;
});
